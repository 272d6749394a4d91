"""The review page in a real Chromium: by keyboard, mouse and on a phone; what merchants wrote; accessibility."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.audit.review_records import Answer, ItemState, Purpose
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.config.schema import Config
from catalog_enrichment.records import Cardinality

from ..review_samples import item, outcome, sample, verdict
from ..review_server import served
from .conftest import OpenPage

if TYPE_CHECKING:
    from playwright.sync_api import Page

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
WITHOUT_PICTURE = item(4, images=())


@pytest.fixture
def store(page_store: ReviewStore, site_config: Config) -> ReviewStore:
    feed = Path(site_config.root) / "feed"
    items = [item(number, images=((str(feed / f"{number}.jpg"), "1"),)) for number in range(4)]
    page_store.add_sample(sample(), [*items, WITHOUT_PICTURE])
    return page_store


def _said(store: ReviewStore, page: Page) -> dict[str, Answer]:
    """Return item -> answer, when the server has all that the page has to send."""
    _until(page, "Object.keys(localStorage).every((key) => !key.startsWith('unsent/'))")
    return {item_id: verdicts[0].answer for item_id, verdicts in store.verdicts("s1").items()}


def _until(page: Page, condition: str) -> None:
    """Wait until ``condition`` is true. The page's policy forbids the eval of Playwright's own wait_for_function."""
    deadline = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


def _violations(page: Page) -> list[Any]:
    """Return the violations that axe finds. The browser adds its script, so that the page's policy allows it."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page)
    return [(of["id"], [node["html"] for node in of["nodes"]]) for of in found.response["violations"]]


def _open(open_page: OpenPage, path: str = "/samples/s1/review", **options: Any) -> Page:
    page = open_page(path, **options)
    page.locator("#card").wait_for()
    return page


def test_a_sample_is_judged_by_keyboard_alone(store: ReviewStore, open_page: OpenPage) -> None:
    page = _open(open_page)
    order = [asked.item_id for asked in store.queue("s1", "Ana", limit=9)]
    assert page.locator("#title").inner_text() == store.item(order[0]).title
    assert page.evaluate("document.activeElement.id") == "title"
    page.keyboard.press("y")
    page.keyboard.press("n")
    page.keyboard.press("h")
    page.keyboard.press("v")
    page.locator("#search").wait_for()
    page.keyboard.type("fonce")  # French, without the accent
    assert page.locator("[role=option]").all_inner_texts() == ["Navy Blue bleu foncé (fr)"]
    page.keyboard.press("Enter")
    page.keyboard.press("c")
    page.locator("#done").wait_for()
    answers = _said(store, page)
    assert [answers[key] for key in order] == [Answer.YES, Answer.NO, Answer.NONE, Answer.OTHER, Answer.CANNOT_TELL]
    assert store.verdicts("s1")[order[3]][0].right_values == ("Navy Blue",)
    assert all(0 < given[0].seconds < 60 for given in store.verdicts("s1").values())
    page.keyboard.press("u")
    page.locator("#card").wait_for()
    assert page.locator("#title").inner_text() == store.item(order[4]).title
    assert order[4] not in store.verdicts("s1")


@pytest.mark.slow
def test_a_judgement_by_mouse_survives_a_reload(store: ReviewStore, open_page: OpenPage) -> None:
    page = _open(open_page)
    order = store.queue("s1", "Ana", limit=9)
    page.get_by_role("button", name="No N", exact=True).click()
    page.get_by_role("button", name="Right value is").click()
    page.get_by_role("option", name="Blue", exact=True).click()
    assert list(_said(store, page).values()).count(Answer.OTHER) == 1
    page.reload()
    page.locator("#card").wait_for()
    assert page.locator("#title").inner_text() == order[2].title
    assert "You: 2 judged, 3 left." in page.locator("#numbers").inner_text()


@pytest.mark.slow
def test_two_people_at_once_dispute_and_a_third_decides(store: ReviewStore, open_page: OpenPage) -> None:
    ana, ben = _open(open_page), _open(open_page, reviewer="Ben")
    for key_ana, key_ben in ("yy", "yy", "yy", "yy", "yn"):
        ana.keyboard.press(key_ana)
        ben.keyboard.press(key_ben)
    ana.locator("#done").wait_for()
    ben.locator("#done").wait_for()
    _said(store, ana)
    _said(store, ben)
    states = [found.state for found in store.outcomes("s1")]
    assert set(states) <= {ItemState.SETTLED, ItemState.DISPUTED}
    assert states.count(ItemState.DISPUTED) == 1
    eve = _open(open_page, "/samples/s1/adjudicate", reviewer="Eve")
    assert sorted(eve.locator("#verdicts li").all_inner_texts()) == ["Ana: yes", "Ben: no"]
    eve.keyboard.press("n")
    eve.locator("#done").wait_for()
    _said(store, eve)
    assert {found.state for found in store.outcomes("s1")} == {ItemState.SETTLED}


@pytest.mark.slow
def test_verdicts_wait_in_the_browser_while_the_server_is_away(
    site_config: Config, store: ReviewStore, open_page: OpenPage, port: int
) -> None:
    page = _open(open_page)
    page.context.set_offline(True)
    page.keyboard.press("n")
    page.locator("#notice", has_text="Not saved yet").wait_for()
    assert store.verdicts("s1") == {}
    page.context.set_offline(False)
    assert list(_said(store, page).values()) == [Answer.NO]
    _until(page, "document.getElementById('notice').textContent === ''")


def test_a_hostile_text_is_shown_as_text(page_store: ReviewStore, open_page: OpenPage) -> None:
    title = '<img src=x onerror="window.hacked=1"><script>window.hacked=2</script>\'"&amp;'
    texts = dict.fromkeys(("title", "category", "product_id"), title)
    hostile = item(1, **texts, description=f"{title}\n\u202egnp.exe", images=((title, title),))
    page_store.add_sample(sample(title=title), [hostile])
    page_store.add_verdict(verdict(hostile, title[:60]))
    for path in ("/samples/s1/review", "/"):
        page = open_page(path)
        shown = page.locator("#title" if "review" in path else ".sample h2")
        shown.wait_for()
        assert shown.inner_text() == title
        assert page.evaluate("window.hacked") is None
        assert page.locator("main img[src=x], main script").count() == 0


def test_evidence_is_marked_in_the_text_that_has_it_and_is_shown_as_text(
    page_store: ReviewStore, open_page: OpenPage
) -> None:
    before, quote, after = "<script>window.hacked=1</script> & ", "<b>Red</b> &amp;\n<script>", " <i>&lt;"
    text = before + quote + after
    given: dict[str, Any] = {"evidence": "<b>red</b> &amp; <script>", "images": ()}
    page_store.add_sample(sample("s1"), [item(1, title=text, description=text, **given)])
    long = "A line.\n" * 99 + text
    page_store.add_sample(sample("s2"), [item(1, "s2", title="Shirt", description=long, **given)])
    page_store.add_sample(sample("s3"), [item(1, "s3", **given)])
    for sample_id, place, whole in (("s1", "#title", text), ("s2", "#description", long)):
        page = _open(open_page, f"/samples/{sample_id}/review")
        assert page.locator("mark").count() == 1
        assert page.locator(f"{place} mark").text_content() == quote
        assert page.locator(place).text_content() == whole
        mark, around = page.locator("mark").bounding_box(), page.locator(place).bounding_box()
        assert mark is not None
        assert around is not None
        assert around["y"] <= mark["y"] < around["y"] + around["height"], "it is scrolled into view"
        assert page.evaluate("window.scrollY") == 0
        assert page.locator("#evidence").is_hidden()
        assert page.evaluate("window.hacked") is None
        assert page.locator("main script, #card b, #card i").count() == 0
    page = _open(open_page, "/samples/s3/review")
    assert page.locator("#evidence").inner_text() == 'The model gives as evidence "<b>red</b> &amp; <script>".'
    assert page.locator("mark").count() == 0


def test_a_number_is_typed(page_store: ReviewStore, open_page: OpenPage) -> None:
    asked = item(1, "s8", attribute="width", value="50 cm")
    page_store.add_sample(sample("s8"), [asked])
    page = _open(open_page, "/samples/s8/review")
    page.keyboard.press("v")
    page.get_by_role("combobox", name="The right value of width, in cm").wait_for()
    assert page.locator("#unit").inner_text() == "cm"
    page.locator("#search").fill("12-15 cm")
    page.get_by_text("This is no value: it has several numbers").wait_for()
    page.locator("#search").fill("0.51 m")
    page.get_by_text("Is kept as 51 cm").wait_for()
    page.locator("#options li").first.click()
    _until(page, "document.getElementById('notice').textContent === ''")
    page.locator("#done").wait_for()
    [verdict] = page_store.verdicts("s8")[asked.item_id]
    assert verdict.right_values == ("51 cm",)


@pytest.mark.slow
def test_a_missing_picture_says_so(store: ReviewStore, page_store: ReviewStore, open_page: OpenPage) -> None:
    page_store.add_sample(sample("s2"), [item(1, "s2", images=(("nosuch.jpg", "1"),))])
    page_store.add_sample(sample("s3"), [item(1, "s3", images=())])
    page = _open(open_page, "/samples/s2/review")
    page.locator("#nopicture", has_text="cannot be shown: image").wait_for()
    page = _open(open_page, "/samples/s3/review")
    page.locator("#nopicture", has_text="no picture").wait_for()


@pytest.mark.slow
def test_several_right_values_are_chosen_one_after_the_other(page_store: ReviewStore, open_page: OpenPage) -> None:
    many = item(1, attribute="material", cardinality=Cardinality.MANY, value="Silk", images=())
    page_store.add_sample(sample(), [many])
    page = _open(open_page)
    page.keyboard.press("v")
    page.locator("#search").wait_for()
    assert page.locator("[role=option]").all_inner_texts() == ["Cotton", "Wool"]  # not Silk, which is wrong
    page.keyboard.type("wo")
    page.keyboard.press("Enter")
    page.keyboard.type("cot")
    page.keyboard.press("Enter")
    page.keyboard.press("Control+Enter")
    page.locator("#done").wait_for()
    _said(page_store, page)
    assert page_store.verdicts("s1")[many.item_id][0].right_values == ("Cotton", "Wool")


def test_on_a_phone_thumbs_are_enough(store: ReviewStore, open_page: OpenPage) -> None:
    page = _open(open_page, **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for button in page.locator("#answers button").all():
        box = button.bounding_box()
        assert box is not None
        assert box["height"] >= 44
        assert box["y"] + box["height"] <= 844  # in reach without scrolling
    page.locator("[data-answer=no]").tap()
    assert list(_said(store, page).values()) == [Answer.NO]


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_axe_finds_nothing(store: ReviewStore, open_page: OpenPage, scheme: str) -> None:
    for reviewer, answer in (("Ben", Answer.YES), ("Eve", Answer.NO)):
        store.add_verdict(verdict(WITHOUT_PICTURE, reviewer, answer))
    page = _open(open_page, color_scheme=scheme)
    server = page.url.split("/samples")[0]
    assert _violations(page) == []
    page.keyboard.press("v")
    page.locator("[role=option]").first.wait_for()
    assert _violations(page) == []
    for path in ("/", "/samples/s1/adjudicate", "/products", "/sign-in"):
        page.goto(server + path)
        page.wait_for_load_state("networkidle")
        assert (path, _violations(page)) == (path, [])


def test_a_gold_sample_asks_for_values_and_whether_there_is_one(page_store: ReviewStore, open_page: OpenPage) -> None:
    many = {"attribute": "material", "cardinality": Cardinality.MANY}
    shirt = [item(1, value="", images=()), item(1, value="", images=(), **many)]
    page_store.add_sample(sample(purpose=Purpose.GOLD), [*shirt, *(item(n, value="", images=()) for n in (2, 3, 4))])
    order = page_store.queue("s1", "Ana", limit=9)
    page = _open(open_page)
    assert "as a perfume has no colour" in page.locator(".note").inner_text()
    assert page.locator("#question").inner_text() == f"What is the {order[0].attribute}?"
    shown = page.locator("#answers button:visible").all_inner_texts()
    assert [" ".join(text.split()) for text in shown] == ["The value is … V", "Has none H", "Cannot tell C"]
    name = page.locator("[data-answer=none]").get_attribute("aria-label")
    assert name == f"Has none: the product has no {order[0].attribute}"
    assert _violations(page) == []
    expected: dict[str, Answer] = {}
    for number, asked in enumerate(order):
        answer = (Answer.NONE, Answer.CANNOT_TELL, Answer.OTHER)[number % 3]
        expected[asked.item_id] = answer
        page.locator("#question", has_text=asked.attribute).wait_for()
        page.keyboard.press("n")  # a gold item cannot be refused: nothing happens
        if answer is Answer.OTHER:
            page.keyboard.press("v")
            page.locator("[role=option]").first.wait_for()
            page.keyboard.press("ArrowDown")
            page.keyboard.press("Enter")
            if asked.cardinality is Cardinality.MANY:
                page.keyboard.press("Control+Enter")
        else:
            page.keyboard.press({Answer.NONE: "h", Answer.CANNOT_TELL: "c"}[answer])
    page.locator("#done").wait_for()
    assert _said(page_store, page) == expected


@pytest.mark.slow
def test_reviewers_who_differ_about_a_value_see_it_in_words(page_store: ReviewStore, open_page: OpenPage) -> None:
    asked = item(1, value="", images=())
    page_store.add_sample(sample(purpose=Purpose.GOLD), [asked])
    page_store.add_verdict(verdict(asked, "Ana", Answer.NONE))
    page_store.add_verdict(verdict(asked, "Ben", Answer.OTHER, "Blue"))
    page = _open(open_page, "/samples/s1/adjudicate", reviewer="Eve")
    assert sorted(page.locator("#verdicts li").all_inner_texts()) == ["Ana: has none", "Ben: the right value is Blue"]
    assert _violations(page) == []
    page.locator("[data-answer=none]").click()
    page.locator("#done").wait_for()
    page.locator("#said", has_text="Saved: has none.").wait_for(state="attached")
    assert outcome(page_store, asked).answer is Answer.NONE


@pytest.mark.slow
def test_suggestions_are_accepted_and_refused(page_store: ReviewStore, open_page: OpenPage) -> None:
    items = [item(number, images=()) for number in (1, 3)]
    page_store.add_sample(sample(purpose=Purpose.SUGGESTIONS, reviewers=1), [*items, item(2, images=())])
    page = _open(open_page, "/samples/s1/review?shop=shop-1")
    assert "takes effect when the job apply_requests runs next" in page.locator(".note").inner_text()
    page.get_by_role("button", name="Accept").click()
    page.get_by_role("button", name="Refuse").click()
    page.locator("#done").wait_for()
    _said(page_store, page)
    asked = sorted((request.kind.value, request.by) for request in page_store.requests())
    assert asked == [("accept", "Ana"), ("refuse", "Ana")]
    assert _violations(page) == []


@pytest.mark.slow
def test_single_keys_can_be_switched_off(store: ReviewStore, open_page: OpenPage) -> None:
    page = _open(open_page)
    page.get_by_label("Single keys answer").uncheck()
    page.keyboard.press("n")
    page.reload()
    page.locator("#card").wait_for()
    page.keyboard.press("n")
    page.get_by_label("Single keys answer").check()
    page.keyboard.press("y")
    assert list(_said(store, page).values()) == [Answer.YES]


@pytest.mark.slow
def test_a_person_signs_in_with_token_and_name(site_config: Config, store: ReviewStore, browser) -> None:  # type: ignore[no-untyped-def]
    from catalog_enrichment.audit.page.guard import Guard

    with served(site_config, store, Guard(token="sixteen-characters-and-more")) as port:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Go on").click()
        page.locator("#notice", has_text="not the server's token").wait_for()
        page.get_by_label("Token").fill("sixteen-characters-and-more")
        page.get_by_role("button", name="Go on").click()
        page.get_by_label("Your name").fill("Zoë")
        page.get_by_role("button", name="Start").click()
        page.get_by_role("link", name="Review").click()
        page.locator("#card").wait_for()
        assert "You are Zoë" in page.locator(".who").inner_text()
        assert page.evaluate("document.cookie") == ""
        context.close()


_TWO_TABS = """async () => {
  const { Unsent } = await import("/static/unsent.js");
  const sent = [], real = window.fetch, verdict = (name) => ({ item_id: name, answer: "yes" });
  window.fetch = async (path, options) => {
    const { item_id } = JSON.parse(options.body);
    sent.push(item_id);
    // meanwhile another tab has sent the first verdict, removed it, and keeps another
    if (sent.length === 1) localStorage.setItem("tabs", JSON.stringify([verdict("of the other tab")]));
    return new Response("{}", { status: item_id === "first" ? STATUS : 200 });
  };
  const ignore = () => undefined;
  await new Unsent("tabs", { onSaved: ignore, onRefused: ignore, onWaiting: ignore }).add(verdict("first"));
  window.fetch = real;
  return [sent, localStorage.getItem("tabs")];
}"""


@pytest.mark.parametrize("status", [200, 422])
def test_a_verdict_of_another_tab_is_not_dropped(store: ReviewStore, open_page: OpenPage, status: int) -> None:
    page = _open(open_page)
    sent, left = page.evaluate(_TWO_TABS.replace("STATUS", str(status)))
    assert (sent, left) == (["first", "of the other tab"], None)


def test_a_typed_value_is_the_first_that_the_search_finds_with_its_signs(
    store: ReviewStore, open_page: OpenPage
) -> None:
    values = ["A", "A+", "A++", "-1.50", "+1.50", "1.50", "C", "C#", "C++", "कम", "काम", "I", "ı", "<5", "Blue"]
    search = """async (values) => {
        const { matching, prepared } = await import("/static/values.js");
        const known = prepared({ values: values.map((value) => ({ value, aliases: [] })) }).values;
        return values.map((typed) => matching(known, typed)[0].entry.value);
    }"""
    assert _open(open_page).evaluate(search, values) == values
