say() { printf 'forebay: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# What fetches from admin. With a pin, the server's public key is what is trusted.
fetch() {
  if [ -n "$pin" ]; then
    curl -fsSk --pinnedpubkey "$pin" -o "$2" "$1"
  else
    curl -fsS -o "$2" "$1"
  fi
}

find_python() {
  for candidate in ${FOREBAY_PYTHON:+"$FOREBAY_PYTHON"} python3 python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      printf '%s\n' "$candidate"
      return 0
    fi
  done
  return 1
}

choose_directory() {
  if [ -n "${FOREBAY_AGENT_DIR:-}" ]; then
    printf '%s\n' "$FOREBAY_AGENT_DIR"
  elif [ "$(id -u)" = 0 ]; then
    printf '%s\n' /var/lib/forebay-agent
  elif [ -n "${HOME:-}" ]; then
    printf '%s\n' "$HOME/.local/share/forebay-agent"
  else
    return 1
  fi
}

install_agent() {
  if [ ! -x "$directory/venv/bin/python" ] || ! "$directory/venv/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$directory/venv"
    "$python" -m venv "$directory/venv" || fail "cannot make a Python environment in $directory/venv"
  fi
  fetch "$admin/join/$token/$wheel" "$directory/$wheel" || fail "cannot fetch the agent from $admin"
  "$directory/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$directory/$wheel[gpu-agent]" ||
    fail "cannot install the agent (pip's words are above; PIP_INDEX_URL and the like are honoured)"
  rm -f "$directory/$wheel"
}

enrol() {
  if [ -n "$pin" ]; then
    "$forebay" agent join --admin "$admin" --token "$token" --node "$node" --dir "$directory" --pin "$pin"
  else
    "$forebay" agent join --admin "$admin" --token "$token" --node "$node" --dir "$directory"
  fi
}

has_systemd() { [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1; }

# A unit file's own quoting: backslash, quote and percent mean something there.
unit_quoted() { printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g; s/%/%%/g; s/\$/$$/g')"; }

start_as_system_unit() {
  cat >/etc/systemd/system/forebay-agent.service <<UNIT
[Unit]
Description=Forebay agent: reports this machine's GPUs and load
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=$(unit_quoted "$forebay") agent run --dir $(unit_quoted "$directory")
Restart=always
RestartSec=2
NoNewPrivileges=yes
ProtectSystem=full
ProtectHome=read-only
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
UNIT
  systemctl daemon-reload && systemctl enable --quiet forebay-agent.service &&
    systemctl restart forebay-agent.service || fail "systemd does not start it: see systemctl status forebay-agent"
  say "started by systemd: systemctl status forebay-agent"
}

start_as_user_unit() {
  systemctl --user stop forebay-agent.service >/dev/null 2>&1 || true
  systemctl --user reset-failed forebay-agent.service >/dev/null 2>&1 || true
  systemd-run --user --quiet --unit=forebay-agent --property=Restart=always --property=RestartSec=2 \
    "$forebay" agent run --dir "$directory" >/dev/null 2>&1 || return 1
  say "started for this session of yours: systemctl --user status forebay-agent"
  say "to start it after a reboot, run then: $forebay agent run --dir $directory"
}

start_in_background() {
  pid_file="$directory/agent.pid"
  if [ -f "$pid_file" ]; then
    old=$(cat "$pid_file")
    # Only what is still our agent: the number may belong to another process by now.
    if tr '\0' ' ' <"/proc/$old/cmdline" 2>/dev/null | grep -qF "agent run --dir $directory"; then
      kill "$old" 2>/dev/null || true
    fi
  fi
  nohup "$forebay" agent run --dir "$directory" >>"$directory/agent.log" 2>&1 </dev/null &
  printf '%s\n' "$!" >"$pid_file"
  sleep 1
  kill -0 "$(cat "$pid_file")" 2>/dev/null || fail "it ended at once: see $directory/agent.log"
  say "started in the background as process $(cat "$pid_file"), log in $directory/agent.log"
  say "nothing starts it after a reboot: run then $forebay agent run --dir $directory"
}

join_forebay() {
  command -v curl >/dev/null 2>&1 || fail "curl is not installed"
  python=$(find_python) || fail "Python 3.11 or newer with venv is needed (Debian: apt install python3-venv); FOREBAY_PYTHON names another"
  directory=$(choose_directory) || fail "HOME is not set; say where to install with FOREBAY_AGENT_DIR"
  case "$directory" in /*) ;; *) directory="$(pwd)/$directory" ;; esac
  umask 077
  mkdir -p "$directory" || fail "cannot make $directory"
  forebay="$directory/venv/bin/forebay"

  say "installing the agent in $directory"
  install_agent
  say "enrolling this machine as $node"
  enrol || fail "this machine is not enrolled; nothing was started"
  if [ "$(id -u)" = 0 ] && has_systemd; then
    start_as_system_unit
  elif [ "$(id -u)" != 0 ] && has_systemd && command -v systemd-run >/dev/null 2>&1 && start_as_user_unit; then
    :
  else
    start_in_background
  fi
  say "done: $node reports to $admin"
}

join_forebay </dev/null
