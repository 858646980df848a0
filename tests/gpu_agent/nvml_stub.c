/* A stand-in for libnvidia-ml.so.1: what it answers stands in the text file that NVML_STUB names, as it is at each call.

   A line is "key value"; a value "!15" is the error 15, and with a value "~" the call hangs until the file says otherwise. A
   GPU's value that is not there is NOT_SUPPORTED, as a real driver answers. OLD_DRIVER leaves out the functions that came
   late. The declarations are ours, so the test compares their layout with the one that nvidia-ml-py uses. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define UNINITIALIZED 1
#define INVALID_ARGUMENT 2
#define NOT_SUPPORTED 3
#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7
#define DRIVER_NOT_LOADED 9
#define TIMED_OUT 10

#define GPUS 16
#define PARTS 8
#define ALL_LINKS 0xFFFFFFFFu

typedef struct { char prefix[24]; unsigned index; } *Device;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned version, sensor; int celsius; } Temperature;
typedef struct { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; } Process;
typedef struct { char legacy_id[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;
typedef struct { Device device; unsigned long long type, data; unsigned gpu_instance, compute_instance; } Event;
typedef struct {
  unsigned field, scope;
  long long at, latency_us;
  unsigned type;
  int result;
  union { double real; unsigned number; unsigned long long wide; } value;
} Field;

static struct { char prefix[24]; unsigned index; } devices[GPUS];
static int opened = 0;

unsigned stub_sizeof_memory(void) { return sizeof(Memory); }
unsigned stub_sizeof_utilization(void) { return sizeof(Utilization); }
unsigned stub_sizeof_temperature(void) { return sizeof(Temperature); }
unsigned stub_sizeof_process(void) { return sizeof(Process); }
unsigned stub_sizeof_pci(void) { return sizeof(Pci); }
unsigned stub_sizeof_event(void) { return sizeof(Event); }
unsigned stub_sizeof_field(void) { return sizeof(Field); }

/* The file's text, read again when it was replaced. */
static const char *answers(void) {
  static char *text = NULL;
  static struct timespec written = {0, 0};
  struct stat now;
  const char *path = getenv("NVML_STUB");
  FILE *file;
  if (!path || stat(path, &now)) return NULL;
  if (text && now.st_mtim.tv_sec == written.tv_sec && now.st_mtim.tv_nsec == written.tv_nsec) return text;
  if (!(file = fopen(path, "r"))) return NULL;
  free(text);
  text = calloc(1, (size_t)now.st_size + 1);
  if (fread(text, 1, (size_t)now.st_size, file) != (size_t)now.st_size) *text = 0;
  fclose(file);
  written = now.st_mtim;
  return text;
}

/* 0 and the text, or an error. */
static int look(const char *key, char *value, size_t size) {
  size_t length = strlen(key);
  for (;;) {
    const char *line = answers();
    if (!line) return DRIVER_NOT_LOADED;
    while (line && !(strncmp(line, key, length) == 0 && line[length] == ' ')) {
      line = strchr(line, '\n');
      if (line) ++line;
    }
    if (!line) return NOT_SUPPORTED;
    line += length + 1;
    if (*line != '~') {
      if (*line == '!') return atoi(line + 1);
      snprintf(value, size, "%.*s", (int)strcspn(line, "\n"), line);
      return 0;
    }
    usleep(5000);
  }
}

static int look_number(const char *key, unsigned long long *number) {
  char text[128];
  int result = look(key, text, sizeof text);
  if (result == 0) *number = strtoull(text, NULL, 10);
  return result;
}

static int ask(Device device, const char *what, char *text, size_t size) {
  char key[96];
  if (!opened) return UNINITIALIZED;
  snprintf(key, sizeof key, "%s.%s", device->prefix, what);
  return look(key, text, size);
}

static int ask_number(Device device, const char *what, unsigned long long *number) {
  char text[128];
  int result = ask(device, what, text, sizeof text);
  if (result == 0) *number = strtoull(text, NULL, 10);
  return result;
}

static int ask_unsigned(Device device, const char *what, unsigned *number) {
  unsigned long long wide = 0;
  int result = ask_number(device, what, &wide);
  if (result == 0) *number = (unsigned)wide;
  return result;
}

int nvmlInitWithFlags(unsigned flags) {
  unsigned long long ignored;
  int result = look_number("init", &ignored);
  (void)flags;
  if (result == NOT_SUPPORTED) result = 0;
  if (result == 0) opened = 1;
  return result;
}

int nvmlShutdown(void) {
  int result = opened ? 0 : UNINITIALIZED;
  opened = 0;
  return result;
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) { return look("driver", version, length); }

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
  unsigned long long number = 0;
  int result = look_number("cuda", &number);
  *version = (int)number;
  return result;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
  unsigned long long number = 0;
  int result = opened ? look_number("count", &number) : UNINITIALIZED;
  *count = (unsigned)number;
  return result;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *device) {
  char text[64];
  if (index >= GPUS) return INVALID_ARGUMENT;
  snprintf(devices[index].prefix, sizeof devices[index].prefix, "gpu%u", index);
  devices[index].index = index;
  *device = (Device)&devices[index];
  int result = ask(*device, "handle", text, sizeof text);
  return result == NOT_SUPPORTED ? 0 : result;
}

int nvmlDeviceGetName(Device device, char *name, unsigned length) { return ask(device, "name", name, length); }
int nvmlDeviceGetUUID(Device device, char *uuid, unsigned length) { return ask(device, "uuid", uuid, length); }
int nvmlDeviceGetSerial(Device device, char *serial, unsigned length) { return ask(device, "serial", serial, length); }

int nvmlDeviceGetPciInfo_v3(Device device, Pci *pci) {
  memset(pci, 0, sizeof *pci);
  return ask(device, "pci_bus_id", pci->bus_id, sizeof pci->bus_id);
}

int nvmlDeviceGetCudaComputeCapability(Device device, int *major, int *minor) {
  char text[32];
  int result = ask(device, "compute_capability", text, sizeof text);
  if (result == 0) sscanf(text, "%d.%d", major, minor);
  return result;
}

int nvmlDeviceGetUtilizationRates(Device device, Utilization *utilization) {
  int result = ask_unsigned(device, "utilization", &utilization->gpu);
  return result ? result : ask_unsigned(device, "memory_utilization", &utilization->memory);
}

int nvmlDeviceGetMemoryInfo(Device device, Memory *memory) {
  int result = ask_number(device, "memory_total", &memory->total);
  if (!result) result = ask_number(device, "memory_used", &memory->used);
  memory->free = memory->total - memory->used;
  return result;
}

int nvmlDeviceGetTemperature(Device device, unsigned sensor, unsigned *celsius) {
  (void)sensor;
  return ask_unsigned(device, "temperature", celsius);
}

int nvmlDeviceGetPowerUsage(Device device, unsigned *mw) { return ask_unsigned(device, "power", mw); }
int nvmlDeviceGetFanSpeed(Device device, unsigned *percent) { return ask_unsigned(device, "fan", percent); }
int nvmlDeviceGetPerformanceState(Device device, unsigned *state) {
  return ask_unsigned(device, "performance_state", state);
}

int nvmlDeviceGetClockInfo(Device device, unsigned clock, unsigned *mhz) {
  return ask_unsigned(device, clock == 1 ? "sm_clock" : clock == 2 ? "memory_clock" : "other_clock", mhz);
}

int nvmlDeviceGetMaxClockInfo(Device device, unsigned clock, unsigned *mhz) {
  return ask_unsigned(device, clock == 1 ? "max_sm_clock" : clock == 2 ? "max_memory_clock" : "other_clock", mhz);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(Device device, unsigned long long *reasons) {
  return ask_number(device, "clock_reasons", reasons);
}

int nvmlDeviceGetEccMode(Device device, unsigned *current, unsigned *pending) {
  *pending = 1;
  return ask_unsigned(device, "ecc", current);
}

int nvmlDeviceGetTotalEccErrors(Device device, unsigned kind, unsigned counter, unsigned long long *errors) {
  char what[64];
  snprintf(what, sizeof what, "ecc_%s_%s", kind == 0 ? "corrected" : "uncorrected", counter == 0 ? "volatile" : "aggregate");
  return ask_number(device, what, errors);
}

int nvmlDeviceGetPcieThroughput(Device device, unsigned direction, unsigned *kilobytes) {
  return ask_unsigned(device, direction == 0 ? "pcie_tx" : "pcie_rx", kilobytes);
}

int nvmlDeviceGetCurrPcieLinkGeneration(Device device, unsigned *g) { return ask_unsigned(device, "pcie_generation", g); }
int nvmlDeviceGetCurrPcieLinkWidth(Device device, unsigned *lanes) { return ask_unsigned(device, "pcie_width", lanes); }
int nvmlDeviceGetMaxPcieLinkGeneration(Device device, unsigned *g) {
  return ask_unsigned(device, "max_pcie_generation", g);
}
int nvmlDeviceGetMaxPcieLinkWidth(Device device, unsigned *lanes) { return ask_unsigned(device, "max_pcie_width", lanes); }

/* "nvlink_states 1101": the third link is down. */
int nvmlDeviceGetNvLinkState(Device device, unsigned link, unsigned *is_active) {
  char text[64];
  int result = ask(device, "nvlink_states", text, sizeof text);
  if (result) return result;
  if (link >= strlen(text)) return INVALID_ARGUMENT;
  *is_active = text[link] == '1';
  return 0;
}

#ifndef OLD_DRIVER
int nvmlDeviceGetTemperatureV(Device device, Temperature *temperature) {
  unsigned celsius = 0;
  int result = ask_unsigned(device, "temperature", &celsius);
  temperature->celsius = (int)celsius;
  return result;
}

int nvmlDeviceGetEnforcedPowerLimit(Device device, unsigned *mw) { return ask_unsigned(device, "power_limit", mw); }

int nvmlDeviceGetCurrentClocksEventReasons(Device device, unsigned long long *reasons) {
  return ask_number(device, "clock_reasons", reasons);
}

int nvmlDeviceGetTotalEnergyConsumption(Device device, unsigned long long *mj) { return ask_number(device, "energy", mj); }

/* "field.82 61"; "field.138.all 7" is the sum over the links. Counters are wide, the rest is not. */
int nvmlDeviceGetFieldValues(Device device, int count, Field *fields) {
  if (!opened) return UNINITIALIZED;
  for (int i = 0; i < count; ++i) {
    char what[32];
    unsigned long long number = 0;
    snprintf(what, sizeof what, fields[i].scope == ALL_LINKS ? "field.%u.all" : "field.%u", fields[i].field);
    fields[i].result = ask_number(device, what, &number);
    fields[i].type = fields[i].scope == ALL_LINKS ? 3 : 1;
    if (fields[i].type == 3) fields[i].value.wide = number;
    else fields[i].value.number = (unsigned)number;
  }
  return 0;
}

/* "remapped_rows 1,2,0,0": after corrected errors, after others, pending, failed. */
int nvmlDeviceGetRemappedRows(Device device, unsigned *corrected, unsigned *others, unsigned *pending, unsigned *failed) {
  char text[64];
  int result = ask(device, "remapped_rows", text, sizeof text);
  if (result == 0) sscanf(text, "%u,%u,%u,%u", corrected, others, pending, failed);
  return result;
}

static struct { char prefix[24]; unsigned index; } parts[GPUS][PARTS];

int nvmlDeviceGetMigMode(Device device, unsigned *current, unsigned *pending) {
  int result = ask_unsigned(device, "mig", current);
  *pending = *current;
  return result;
}

int nvmlDeviceGetMaxMigDeviceCount(Device device, unsigned *count) {
  unsigned mig = 0;
  int result = ask_unsigned(device, "mig", &mig);
  *count = mig ? 7 : 0;
  return result;
}

/* There is an instance where there is a "gpu0.mig2.uuid"; its other values stand beside that. */
int nvmlDeviceGetMigDeviceHandleByIndex(Device device, unsigned index, Device *part) {
  char text[128];
  if (index >= PARTS) return INVALID_ARGUMENT;
  Device found = (Device)&parts[device->index][index];
  snprintf(found->prefix, sizeof found->prefix, "gpu%u.mig%u", device->index, index);
  found->index = device->index;
  *part = found;
  int result = ask(found, "uuid", text, sizeof text);
  return result == NOT_SUPPORTED ? NOT_FOUND : result;
}

int nvmlDeviceGetGpuInstanceId(Device device, unsigned *id) { return ask_unsigned(device, "gpu_instance", id); }
int nvmlDeviceGetComputeInstanceId(Device device, unsigned *id) { return ask_unsigned(device, "compute_instance", id); }

/* "compute 41:1000,42:-": pid and bytes, - for a process whose memory the driver does not know. */
static int processes(Device device, const char *what, unsigned *count, Process *list) {
  char text[1 << 15];
  int result = ask(device, what, text, sizeof text);
  if (result) return result;
  unsigned room = *count;
  *count = 0;
  for (char *rest = text, *one; (one = strsep(&rest, ","));) {
    char *memory = strchr(one, ':');
    if (list && *count < room) {
      memset(&list[*count], 0, sizeof *list);
      list[*count].pid = (unsigned)strtoul(one, NULL, 10);
      list[*count].memory = memory[1] == '-' ? ~0ULL : strtoull(memory + 1, NULL, 10);
    }
    ++*count;
  }
  return *count > room ? INSUFFICIENT_SIZE : 0;
}

int nvmlDeviceGetComputeRunningProcesses_v3(Device device, unsigned *count, Process *list) {
  return processes(device, "compute", count, list);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(Device device, unsigned *count, Process *list) {
  return processes(device, "graphics", count, list);
}

/* "xids 0:79,1:48": what happened so far, each told once to whoever watches that GPU. */
static unsigned watched = 0, delivered = 0;

int nvmlEventSetCreate(void **set) {
  *set = &watched;
  return opened ? 0 : UNINITIALIZED;
}

int nvmlDeviceRegisterEvents(Device device, unsigned long long types, void *set) {
  char text[64];
  int result = ask(device, "events", text, sizeof text);
  (void)set;
  if (result && result != NOT_SUPPORTED) return result;
  if (types & 8) watched |= 1u << device->index;
  return 0;
}

int nvmlEventSetWait_v2(void *set, Event *event, unsigned timeout_ms) {
  char text[1024];
  unsigned number = 0;
  (void)set;
  if (!opened) return UNINITIALIZED;
  if (look("xids", text, sizeof text) == 0) {
    for (char *rest = text, *one; (one = strsep(&rest, ","));) {
      unsigned index = (unsigned)strtoul(one, NULL, 10);
      if (++number <= delivered || !(watched & 1u << index)) continue;
      delivered = number;
      memset(event, 0, sizeof *event);
      event->device = (Device)&devices[index];
      event->type = 8;
      event->data = strtoull(strchr(one, ':') + 1, NULL, 10);
      return 0;
    }
  } else {
    delivered = 0;
  }
  usleep(timeout_ms * 1000);
  return TIMED_OUT;
}

int nvmlEventSetFree(void *set) {
  (void)set;
  watched = 0;
  return 0;
}
#endif
