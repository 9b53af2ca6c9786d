"""The page in a real browser: Debian's chromium, without a screen."""

import dataclasses
import importlib.util
import json
import re
import shutil

import pytest

from pp_env.randomization import RANDOMIZATION_PRESETS
from tests.pp_bridge.server import SHORT_EPISODES, SMALL_IMAGES, BridgeServer
from tests.pp_bridge.test_web_process import TOKEN

if importlib.util.find_spec("playwright") is None:
    pytest.skip("playwright is not installed: pip install '.[dev]'", allow_module_level=True)

from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("there is no chromium: apt-get install chromium", allow_module_level=True)

TIMEOUT = 60_000  # ms
MEAN_BRIGHTNESS = """() => [
    ...document.querySelectorAll("#cameras video, #cameras img"),
].map((v) => {
  const canvas = new OffscreenCanvas(16, 16).getContext("2d");
  canvas.drawImage(v, 0, 0, 16, 16);
  const data = canvas.getImageData(0, 0, 16, 16).data.filter((_, i) => i % 4 !== 3);
  return data.reduce((a, b) => a + b) / data.length;
})"""


@pytest.fixture(scope="module")
def browser():
    options = ["--no-sandbox"]  # in a container Chromium lacks the rights for its sandbox
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=options) as browser,
    ):
        yield browser


@pytest.fixture
def page(browser):
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.set_default_timeout(TIMEOUT)
        expect.set_options(timeout=TIMEOUT)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        assert errors == []


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with BridgeServer(tmp_path_factory.mktemp("root"), *SMALL_IMAGES) as running:
        yield running
        print("".join(line for line in running.lines if '"failed"' in line))  # shown on failure


def collect(page: Page, name: str, episodes: int) -> None:
    """Fill in the form by the accessible names of its fields, and start."""
    page.get_by_label("Dataset", exact=True).fill(name)
    page.get_by_label("Episodes", exact=True).fill(str(episodes))
    if not page.get_by_label("Keep").is_visible():
        unfold(page, "Demonstrations")
    page.get_by_label("Keep").select_option(SHORT_EPISODES["keep"])
    page.get_by_label("Steps per segment").fill(str(SHORT_EPISODES["steps_per_segment"]))
    page.get_by_role("button", name="Collect data").click()


def unfold(page: Page, group: str) -> None:
    page.locator("summary").get_by_text(group, exact=True).click()


def frames(page: Page) -> list[int]:
    """Return the number of frames that each camera's video has shown."""
    return page.evaluate(
        """() => [...document.querySelectorAll("#cameras video")]
            .map((video) => video.getVideoPlaybackQuality().totalVideoFrames)"""
    )


def test_collect_watch_and_stop(server, page):
    page.goto(server.address)
    expect(page.locator("#transport")).to_have_text("Live by WebRTC.")
    collect(page, "first", 2)
    expect(page.locator("#state")).to_have_text("first is complete: 2 episodes.")
    assert page.get_by_role("progressbar").evaluate("bar => bar.value") == 1
    expect(page.locator("#last li")).to_have_count(2)
    video = page.locator("#last video").first
    page.get_by_role("button", name="Play episode 1").click()
    expect(video).to_have_js_property("ended", True)

    collect(page, "second", 1000)
    expect(page.locator("#state")).to_contain_text("Collecting second:")
    before = frames(page)
    means = [page.evaluate(MEAN_BRIGHTNESS) for _ in range(20) if not page.wait_for_timeout(100)]
    assert all(min(mean) > 5 for mean in means), "not black"
    assert all(len({round(m[camera], 2) for m in means}) > 3 for camera in (0, 1)), "they move"
    assert all(now > then for now, then in zip(frames(page), before, strict=True))
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#state")).to_contain_text("second was stopped; it holds")
    page.get_by_role("button", name="Inspect second").click()
    expect(page.get_by_role("row", name="second").get_by_role("status")).to_contain_text("SOUND:")


def test_without_webrtc_there_are_jpegs(server, page):
    page.add_init_script("delete window.RTCPeerConnection")
    page.goto(server.address)
    expect(page.locator("#transport")).to_have_text("Live by JPEG: WebRTC can't get through.")
    expect(page.locator("#cameras img").first).to_have_js_property("naturalWidth", 64)
    page.wait_for_function(
        f"() => Math.min(...({MEAN_BRIGHTNESS})()) > 5"
    )  # fails where they stay black


def test_errors_are_words(server, page):
    (server.root / "taken").mkdir()
    (server.root / "taken" / "something").touch()
    page.goto(server.address)
    collect(page, "taken", 1)
    alert = page.get_by_role("alert").first
    expect(alert).to_contain_text("exists and is not an empty directory")
    expect(alert).to_contain_text("continue an interrupted collection with “Resume”")
    page.get_by_label("Start mix").fill("anywhere")
    collect(page, "free", 1)
    expect(alert).to_have_text(
        "“Expert” waypoints cannot start from anywhere; try “Expert” reactive"
    )
    page.get_by_label("Start mix").fill("home=7")
    collect(page, "free", 1)
    expect(alert).to_contain_text("“Start mix” the share of home must be from 0 to 1")
    page.get_by_label("Start mix").fill("home")
    unfold(page, "Scene")
    page.get_by_label("Num objects").fill("2")
    collect(page, "free", 1)
    expect(alert).to_contain_text("“Num objects” must be from 1 to 1")
    expect(alert).to_contain_text("“Use YCB” has six")
    for camera in ("cam_high", "cam_wrist"):
        page.get_by_label(camera, exact=True).uncheck()
    collect(page, "free", 1)
    expect(alert).to_contain_text("Cameras: List should have at least 1 item")
    page.get_by_label("Num objects").fill("1")
    page.get_by_label("cam_high", exact=True).check()
    collect(page, "free", 1)
    expect(page.locator("#state")).to_have_text("free is complete: 1 episode.")
    expect(page.locator("#error")).to_have_text("")


def test_a_wrong_number_that_is_folded_away_is_shown(server, page):
    page.goto(server.address)
    unfold(page, "Demonstrations")
    expect(page.get_by_role("button", name="Collect data")).to_be_enabled()
    page.get_by_label("Seed").fill("")
    unfold(page, "Demonstrations")
    expect(page.get_by_label("Seed")).to_be_hidden()
    page.get_by_role("button", name="Collect data").click()
    expect(page.get_by_label("Seed")).to_be_focused()


def test_the_keyboard_is_enough(server, page):
    page.goto(server.address)
    expect(page.get_by_role("button", name="Collect data")).to_be_enabled()
    page.get_by_label("Dataset", exact=True).focus()
    seen = []
    for _ in range(8):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement === document.body"):
            break  # past the last one
        seen.append(page.evaluate("() => document.activeElement.name || document.activeElement.id"))
        html = page.evaluate("() => document.activeElement.outerHTML.slice(0, 200)")
        style = "() => getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate(style) != "none", html
    assert seen[0] == "num_episodes"
    assert "start" in seen


def test_a_form_that_comes_late_overwrites_nothing(server, page):
    """The form once stood there while its defaults were fetched, which undid what one had typed."""
    page.add_init_script("""
        const fetched = window.fetch;
        window.fetch = async (path, options) => {
          if (path === "openapi.json") await new Promise((done) => { window.goOn = done; });
          return fetched(path, options);
        };""")
    page.goto(server.address)
    expect(page.locator("#progress")).to_be_visible()
    page.wait_for_function("() => window.goOn")
    expect(page.locator("#collect")).to_be_hidden()
    page.evaluate("() => window.goOn()")
    expect(page.get_by_label("Dataset", exact=True)).to_have_value("pick_place")


def test_the_form_has_the_fields_bounds_and_defaults_of_the_request(server, page):
    document = server.client.get("/openapi.json").json()
    fields = document["components"]["schemas"]["StartRequest"]["properties"]
    page.goto(server.address)
    expect(page.locator("#collect")).to_be_visible()
    controls = page.evaluate(
        """() => Object.fromEntries([...document.getElementById("form").elements]
            .filter(({ name }) => name).map((c) => [c.name, [c.value, c.min, c.max]]))"""
    )
    assert controls.keys() == fields.keys() - {"skill"}
    assert controls["noise_rad"] == ["0.05", "0", str(fields["noise_rad"]["maximum"])]
    assert controls["preset"][0] == "fast", "the service's own, not collect.py's"
    assert controls["joint_speed"][0] == ""
    assert controls["seed"][2] == str(2**53 - 1), "beyond it, a page's numbers are not exact"


def test_a_collection_has_the_options_that_the_page_shows(server, page):
    page.goto(server.address)
    page.get_by_label("Dataset", exact=True).fill("special")
    page.get_by_label("Episodes", exact=True).fill("1")
    unfold(page, "Scene")
    page.get_by_label("Randomize").select_option("light")
    page.get_by_label("Use YCB").check()
    page.get_by_label("Num objects").fill("2")
    page.get_by_label("Object", exact=True).fill("mustard_bottle")
    page.get_by_label("Random yaw").check()
    page.get_by_label("cam_high", exact=True).uncheck()
    page.get_by_label("cam_front", exact=True).check()
    unfold(page, "Demonstrations")
    page.get_by_label("Expert").select_option("reactive")
    page.get_by_label("Start mix").fill("random=1")
    page.get_by_label("Joint speed").fill("2")
    page.get_by_role("button", name="Collect data").click()
    expect(page.locator("#state")).to_have_text("special is complete: 1 episode.")
    found = json.loads((server.root / "special/meta/collection.json").read_text())
    config = found["config"]
    assert (found["expert"], found["start_mix"], found["joint_speed"]) == (
        "reactive",
        "random=1",
        2,
    )
    assert found["object"] == "mustard_bottle"
    assert list(found["cameras"]) == ["cam_wrist", "cam_front"]
    assert (config["num_objects"], len(config["objects"])) == (2, 6)
    assert config["task"]["random_yaw"]
    light = dataclasses.asdict(RANDOMIZATION_PRESETS["light"])
    assert config["randomization"] == json.loads(json.dumps(light))
    expect(page.locator("#cameras figcaption")).to_have_text(["cam_wrist", "cam_front"])
    expect(page.locator("#asked-title")).to_have_text(
        "Options – Randomize: light · Cameras: cam_wrist, cam_front · Use YCB: yes · "
        "Num objects: 2 · Object: mustard_bottle · Random yaw: yes · Expert: reactive · "
        "Start mix: random=1 · Joint speed: 2"
    )
    page.locator("#asked-title").click()
    expect(page.locator("#options")).to_contain_text("Preset")
    expect(page.locator("#transport")).to_contain_text("Live by")


def test_on_a_phone_the_cameras_stack_and_move(server, page):
    page.set_viewport_size({"width": 390, "height": 600})
    page.goto(server.address)
    expect(page.locator("#transport")).to_have_text("Live by WebRTC.")
    boxes = """() => [...document.querySelectorAll("#cameras figure")]
        .map((figure) => figure.getBoundingClientRect()).map(({ x, y }) => [x, y])"""
    (left, top), (next_left, below) = page.evaluate(boxes)
    assert next_left == left
    assert below > top
    page.set_viewport_size({"width": 820, "height": 600})
    (left, top), (next_left, below) = page.evaluate(boxes)
    assert next_left > left
    assert below == top


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_nothing_is_wider_than_the_screen(server, page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(server.address)
    collect(page, "a-dataset-with-a-rather-long-name", 1)
    button = page.get_by_role("button", name="Inspect a-dataset-with-a-rather-long-name")
    expect(button).to_be_visible()
    expect(page.locator("#transport")).to_contain_text("Live by")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    spilling = """() => [...document.querySelectorAll("section")]
        .filter((section) => section.scrollWidth > section.clientWidth).map(({ id }) => id)"""
    assert page.evaluate(spilling) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_accessibility_problem(server, page, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.emulate_media(color_scheme=scheme)
    page.goto(server.address)
    collect(page, f"axe-{scheme}", 1)  # also opens the folded part of the form
    expect(page.locator("#state")).to_contain_text(f"axe-{scheme} is complete")
    expect(page.get_by_role("button", name="Play episode 0")).to_be_visible()
    collect(page, f"axe-{scheme}", 1)  # once more, for an error to show
    expect(page.locator("#error")).to_contain_text("exists and is not an empty directory")
    results = axe.run(page)
    assert results.violations_count == 0, results.generate_report()


def test_the_token_opens_the_page(browser, tmp_path):
    variables = {"PP_BRIDGE_TOKEN": TOKEN}
    with (
        BridgeServer(tmp_path, *SMALL_IMAGES, variables=variables) as server,
        browser.new_page() as page,
    ):
        page.goto(server.address)
        field = page.get_by_label("The service's token")
        field.fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_text("this is not the service's token")).to_be_visible()
        field.fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(page.locator("#transport")).to_have_text(re.compile("Live by"), timeout=TIMEOUT)
