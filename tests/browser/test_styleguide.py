"""The components that all pages are made of, in every state: they fit, can be read and reached, and do what they say."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.visiting import NOBODY, PHONE, House, every_look


@every_look
def test_every_component_fits_and_is_accessible(house: House, theme: str, width: int) -> None:
    with house.visitor("member", theme=theme, width=width) as visitor:
        page = visitor.go("/styleguide")
        expect(page.locator("#sample-plot canvas")).to_be_visible()
        expect(page.locator("#sample-bars canvas")).to_be_visible()
        visitor.look_over("styleguide")


def test_it_fits_the_narrowest_phone(house: House) -> None:
    with house.visitor("member", width=320) as visitor:
        visitor.go("/styleguide")
        visitor.look_over("styleguide")


def test_without_scripts_all_of_it_is_there_but_what_scripts_draw(house: House) -> None:
    with house.visitor("member", width=PHONE, java_script_enabled=False) as visitor:
        page = visitor.go("/styleguide")
        visitor.shot("styleguide-plain")
        expect(page.get_by_role("button", name="Copy").first).to_be_hidden()
        page.get_by_text("Menu", exact=True).click()
        expect(page.get_by_role("navigation", name="Menu").get_by_role("link", name="Preferences")).to_be_visible()
        page.get_by_text("Tokens per second as a table").click()
        expect(page.locator("#sample-plot tbody tr")).to_have_count(5)
        page.get_by_role("link", name="Open a dialog").click()
        page.wait_for_url("**/styleguide/dialog")


def test_the_theme_is_switched_and_the_server_knows_it_in_the_next_page(house: House) -> None:
    with house.visitor("member", theme="light") as visitor:
        page = visitor.go("/styleguide")
        switch = page.get_by_role("button", name="Theme:")
        expect(switch).to_have_text("Theme: system")
        switch.click()
        switch.click()
        expect(switch).to_have_text("Theme: dark")
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        visitor.go("/styleguide")
        assert page.locator("html").get_attribute("data-theme") == "dark"
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ground
        page.get_by_role("button", name="Theme:").click()
        assert page.locator("html").get_attribute("data-theme") is None


def test_what_is_copied_is_on_the_clipboard(house: House) -> None:
    with house.visitor("member", permissions=["clipboard-read", "clipboard-write"]) as visitor:
        page = visitor.go("/styleguide")
        page.get_by_role("button", name="Copy curl").click()
        expect(page.get_by_role("button", name="Copy curl")).to_have_text("Copied")
        expect(page.locator(".toast")).to_have_text("Copied.")
        assert page.evaluate("navigator.clipboard.readText()").startswith("curl https://")


def test_a_dialog_opens_takes_the_focus_and_gives_it_back(house: House) -> None:
    with house.visitor("member") as visitor:
        page = visitor.go("/styleguide")
        page.get_by_role("link", name="Open a dialog").click()
        dialog = page.get_by_role("dialog", name="Drain gpu-1")
        expect(dialog).to_be_visible()
        visitor.demand_accessible()
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(page.get_by_role("link", name="Open a dialog")).to_be_focused()


def test_what_cannot_be_taken_back_is_asked_about_first(house: House) -> None:
    with house.visitor("member") as visitor:
        visitor.may_fail = True  # nothing takes the form at that address
        page = visitor.go("/styleguide")
        page.locator("summary", has_text="More").click()
        page.get_by_role("button", name="Delete").click()
        question = page.get_by_role("dialog", name="Delete gpu-1?")
        expect(question.get_by_role("button", name="Cancel")).to_be_focused()
        visitor.demand_accessible()
        question.get_by_role("button", name="Cancel").click()
        assert page.url.endswith("/styleguide")
        page.get_by_role("button", name="Delete").click()
        with page.expect_request(lambda asked: asked.method == "POST") as sent:
            question.get_by_role("button", name="Delete").click()
        assert "csrf=" in (sent.value.post_data or "")


def test_a_plot_has_its_numbers_as_a_table_and_its_lines_as_buttons(house: House) -> None:
    with house.visitor("member") as visitor:
        page = visitor.go("/styleguide")
        figure = page.locator("#sample-plot")
        line = figure.get_by_role("button", name="qwen-3")
        expect(line).to_have_attribute("aria-pressed", "true")
        line.press("Enter")
        expect(line).to_have_attribute("aria-pressed", "false")
        figure.get_by_text("Tokens per second as a table").click()
        expect(figure.locator("tbody tr")).to_have_count(120)
        expect(figure.locator("thead th")).to_have_text(["When", "gemma-3", "qwen-3", "llama-4"])
        expect(figure.get_by_role("cell", name="—").first).to_be_attached()  # what was not measured


def test_moments_are_told_in_the_zone_of_who_reads_and_what_is_old_looks_it(house: House) -> None:
    with house.visitor("member") as visitor:
        page = visitor.go("/styleguide")
        moment = page.locator("time[data-moment]").first
        hour = page.evaluate(
            "(at) => new Date(at).toLocaleTimeString('en-GB', {timeZone: 'Europe/Berlin', timeStyle: 'short'})",
            moment.get_attribute("datetime"),
        )
        expect(moment).to_contain_text(hour)
        old = page.locator(".stat", has_text="Old").locator("time")
        expect(old).to_contain_text("6 min ago")
        expect(old).to_have_class("age is-stale")


def test_nobody_is_asked_to_sign_in_first(house: House) -> None:
    with house.visitor(NOBODY) as visitor:
        page = visitor.go("/styleguide")
        assert "/sign-in?next=%2Fstyleguide" in page.url


def test_scripts_weigh_no_more_than_they_may(house: House) -> None:
    with house.visitor("member") as visitor:
        weights: dict[str, int] = {}
        visitor.page.on(
            "response",
            lambda answer: weights.update({answer.url: len(answer.body())} if answer.url.endswith(".js") else {}),
        )
        page = visitor.go("/styleguide")
        expect(page.locator("#sample-plot canvas")).to_be_visible()
        assert len(weights) == 2
        assert sum(weights.values()) <= 150_000


def test_a_live_part_is_renewed_and_leaves_alone_what_somebody_does_in_it(house: House) -> None:
    with house.visitor("member") as visitor:
        page = visitor.go("/styleguide")
        part = page.locator("[data-live=styleguide]")
        part.get_by_text("What somebody opened stays open").click()
        part.get_by_label("What somebody types stays").fill("half a thought")
        page.get_by_role("heading", name="Buttons").click()  # the field is left
        first = part.get_by_text("Made at").inner_text()
        expect(page.locator("[data-live-state]")).to_have_text("Live")
        expect(part.get_by_text("Made at")).not_to_have_text(first)
        expect(part.get_by_label("What somebody types stays")).to_have_value("half a thought")
        expect(part.get_by_text("Made at")).to_be_visible()
        expect(part.locator("time")).to_contain_text("now")


def test_a_list_is_narrowed_while_one_types_and_the_address_knows_it(house: House) -> None:
    with house.visitor("member") as visitor:
        page = visitor.go("/styleguide")
        found = page.locator("#sample-found tbody tr")
        expect(found).to_have_count(4)
        page.get_by_label("Search").press_sequentially("vllm")
        expect(found).to_have_text(["vllm-1", "vllm-2"])
        page.wait_for_url("**/styleguide?q=vllm**")
        expect(page.get_by_label("Search")).to_be_focused()
        page.reload()
        expect(page.locator("#sample-found tbody tr")).to_have_text(["vllm-1", "vllm-2"])
        page.get_by_label("Search").fill("<b>")
        page.get_by_label("Search").press("Enter")
        expect(page.locator("#sample-found tbody tr")).to_have_text(["Nothing matches."])


def test_a_list_is_narrowed_without_scripts_too(house: House) -> None:
    with house.visitor("member", java_script_enabled=False) as visitor:
        page = visitor.go("/styleguide")
        page.get_by_label("Search").fill("ollama")
        page.get_by_role("button", name="Show").click()
        expect(page.locator("#sample-found tbody tr")).to_have_text(["ollama-1"])


def test_who_was_signed_out_meanwhile_is_sent_to_sign_in(house: House) -> None:
    with house.visitor("member") as visitor:
        visitor.may_fail = True  # the live part is refused then, too
        page = visitor.go("/styleguide")
        page.context.clear_cookies()
        page.get_by_label("Search").press_sequentially("v")
        page.wait_for_url("**/sign-in?next=**")
