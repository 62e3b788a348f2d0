"""report.html: it opens with the verdict, loads nothing, and no text of the model is markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from plotly.offline import get_plotlyjs

from symbio_core.records import Battery
from symbio_core.report import render
from symbio_core.report.page import headline
from symbio_core.report.samples import BEST, WORST, pick

KINDS = ["evolved wins", "fixed wins", "no difference"]
LOADING = {"src", "href", "srcset", "action", "data", "poster", "background", "formaction", "ping"}
VOID = {"meta", "br", "img", "link", "input", "hr", "base", "source", "col", "wbr"}


def changed(record, **changes):
    return record.model_copy(update=changes)


class Reader(HTMLParser):
    """Collects what a browser would see: tags, attributes, text, and whether tags close."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append((self.tags[-1][1], data))
        elif self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def figures(self) -> dict[str, dict]:
        return {
            str(attrs["data-for"]): json.loads(data)
            for attrs, data in self.scripts
            if "data-for" in attrs
        }


@pytest.fixture(scope="module")
def page(life, confirmed) -> str:
    return render(life.report(confirmed("evolved wins")), life.attempts)


@pytest.fixture(scope="module")
def read(page) -> Reader:
    return Reader(page)


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_opens_with_the_verdict(life, confirmed, kind):
    report = life.report(confirmed(kind))
    seen = Reader(render(report, life.attempts))
    first = next(text for text in seen.texts if text == headline(report))
    assert seen.texts.index(first) < seen.texts.index("bits a byte")
    assert seen.text.count("p = 0.") >= 1


def test_no_difference_says_to_keep_the_fixed_function(life, confirmed):
    assert headline(life.report(confirmed("no difference"))) == "No difference: keep ReLU²."


def test_the_sentence_under_the_headline_does_not_repeat_it(life, confirmed):
    seen = Reader(render(life.report(confirmed("no difference")), life.attempts))
    assert seen.texts.count("No difference: keep ReLU².") == 1
    assert any(text.startswith(confirmed("no difference").winner + " was") for text in seen.texts)


def test_a_fixed_function_that_the_search_chose_is_called_by_its_name(life, confirmed):
    found = confirmed("evolved wins")
    own = changed(found.contenders[1], nats=found.contenders[0].nats)
    chosen = changed(
        found,
        winner=own.formula,
        contenders=(own, *found.contenders[2:]),
        effects=found.effects[1:],
        verdict="fixed wins",
    )
    seen = Reader(render(life.report(chosen), life.attempts))
    assert f"Keep ReLU²: it won at {found.steps_each} steps." in seen.texts
    assert "ReLU² is better" in seen.texts
    assert "evolved is better" not in seen.text


def test_a_run_without_a_final_says_so_in_large_and_why(life):
    early = life.report(attempts=life.attempts[:2])
    seen = Reader(render(early, life.attempts[:2]))
    assert "Not measured." in seen.texts
    lead = next(text for text in seen.texts if "before the final" in text)
    assert lead.startswith("The run ended after primordial")


def test_a_run_without_phases_still_renders(life):
    seen = Reader(render(life.report(attempts=()), ()))
    assert "The run ended before its first evaluation." in seen.text
    assert set(seen.figures()) == {"functions"}


def test_every_tag_is_closed_and_every_figure_has_its_box_and_caption(read):
    assert read.open == []
    ids = {attrs.get("id") for _, attrs in read.tags}
    assert set(read.figures()) == {"losses", "final", "functions", "tree", "togetherness"}
    assert set(read.figures()) <= ids
    tags = [tag for tag, _ in read.tags]
    assert tags.count("figcaption") == tags.count("figure") == 5


def test_every_axis_has_a_title(read):
    for name, figure in read.figures().items():
        assert figure["layout"]["xaxis"]["title"]["text"], name
        if "ticktext" not in figure["layout"]["yaxis"]:
            assert figure["layout"]["yaxis"]["title"]["text"], name


def test_the_page_loads_nothing(page, read):
    for tag, attrs in read.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base"}, tag
        assert not LOADING & set(attrs), (tag, attrs)
        assert attrs.get("http-equiv", "").lower() != "refresh"
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL).group(1)
    assert "url(" not in style
    assert "@import" not in style


def test_the_browser_is_told_to_refuse_every_request(read):
    policy = next(
        attrs["content"]
        for tag, attrs in read.tags
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_text_of_the_model_is_shown_and_never_run(life, read):
    hostile = "<script>alert('text')</script><img src="
    assert any(s.text.startswith(hostile) for s in life.attempts[-1].battery.samples)
    assert hostile in read.text
    assert "img" not in {tag for tag, _ in read.tags}
    assert not any(data.startswith("alert") for _, data in read.scripts)


def test_no_text_of_config_journal_or_environment_is_markup(life, confirmed):
    bad = "</script><script>alert(1)</script><b onclick=x>&amp;"
    first = life.attempts[0]
    attempt = changed(
        first,
        outcome=changed(first.outcome, alarms=(bad,), reason=bad),
        decision=changed(first.decision, reason=bad, rule=bad),
        verdicts=tuple(changed(v, reason=bad, metric=bad) for v in first.verdicts),
    )
    searched = life.attempts[1]
    generation = searched.outcome.generations[0]
    spoiled = tuple(changed(m, fate=bad) for m in generation.members)
    outcome = changed(searched.outcome, generations=(changed(generation, members=spoiled),))
    attempts = (attempt, changed(searched, outcome=outcome), *life.attempts[2:])
    config = changed(life.config, data=changed(life.config.data, corpus=bad))
    report = life.report(
        confirmed("no difference"),
        attempts=attempts,
        config=config,
        run_id=bad,
        state=changed(life.state, finished=bad, flags=(bad,)),
        environment=changed(life.environment, platform=bad),
    )
    seen = Reader(render(report, attempts))
    assert seen.open == []
    assert "b" not in {tag for tag, attrs in seen.tags if "onclick" in attrs}
    assert not any(data.startswith("alert") for _, data in seen.scripts)
    assert seen.text.count(bad) >= 8
    hovers = json.dumps(seen.figures()["tree"]["data"])
    assert "<script>" not in hovers
    assert "&lt;script&gt;" in hovers


def test_the_same_run_gives_the_same_page(life, confirmed, page):
    assert render(life.report(confirmed("evolved wins")), life.attempts) == page


def test_the_page_tells_how_to_talk_to_the_model(read):
    assert "symbio sample demo-7f3a --prompt 'What news, my lord?'" in read.text
    assert "storage/runs/demo-7f3a/model/" in read.text


def test_a_storage_elsewhere_is_named_in_the_command_and_quoted(life):
    config = changed(life.config, storage=changed(life.config.storage, root="my runs"))
    seen = Reader(render(life.report(config=config), life.attempts))
    assert "--prompt 'What news, my lord?' --storage 'my runs'" in seen.text


def test_long_cells_are_not_cut(life, confirmed):
    long = "why " * 60
    first = life.attempts[0]
    attempts = (changed(first, decision=changed(first.decision, reason=long)), *life.attempts[1:])
    report = life.report(confirmed("evolved wins"), attempts=attempts)
    assert long.strip() in Reader(render(report, attempts)).text


def test_best_and_worst_samples_never_overlap(life):
    whole = life.attempts[-1].battery
    for n in range(len(whole.samples) + 1):
        battery: Battery = changed(whole, samples=whole.samples[:n])
        best, worst = pick(battery)
        assert len(best) == min(n, BEST)
        assert len(worst) == min(max(0, n - BEST), WORST)
        assert not {id(s) for s in best} & {id(s) for s in worst}
        if best and worst:
            assert min(s.quality for s in best) >= max(s.quality for s in worst)
            assert min(s.quality for s in whole.samples[:n]) == worst[0].quality


def test_a_null_search_says_at_the_top_that_it_is_one(life, confirmed):
    shuffled = changed(life.config, search=changed(life.config.search, shuffle=True))
    seen = Reader(render(life.report(confirmed("evolved wins"), config=shuffled), life.attempts))
    assert "A null search" in seen.text
    plain = Reader(render(life.report(confirmed("evolved wins")), life.attempts))
    assert "A null search" not in plain.text


def test_what_was_switched_off_is_told_at_the_top_and_among_the_facts(life):
    config = changed(life.config, without=("fusion", "niche"))
    seen = Reader(render(life.report(config=config), life.attempts))
    assert any("Switched off in this run: fusion, niche." in text for text in seen.texts)
    assert seen.texts[seen.texts.index("switched off") + 1] == "fusion, niche"
    plain = Reader(render(life.report(), life.attempts))
    assert plain.texts[plain.texts.index("switched off") + 1] == "nothing"


def test_a_final_that_was_switched_off_is_named_as_the_reason(life):
    report = life.report(config=changed(life.config, without=("final",)))
    assert "Not measured: the final was switched off" in report.verdict


def test_a_search_that_was_switched_off_is_not_called_cut_short(life):
    quiet = tuple(changed(a, outcome=changed(a.outcome, generations=())) for a in life.attempts)
    config = changed(life.config, without=("search",))
    seen = Reader(render(life.report(config=config, attempts=quiet), quiet))
    assert "The search was switched off." in seen.text
    seen = Reader(render(life.report(attempts=quiet), quiet))
    assert "before its first generation" in seen.text


def test_a_model_that_ships_against_the_advice_of_the_final_says_why(life, confirmed):
    told = "the final above compared fresh models"
    against = life.report(confirmed("no difference"))
    assert against.shipped.formula == confirmed("no difference").winner
    assert told in Reader(render(against, life.attempts)).text
    kept = changed(life.shipped, formula="relu(x)²")
    agreed = life.report(confirmed("fixed wins"), shipped=kept)
    assert told not in Reader(render(agreed, life.attempts)).text
    won = life.report(confirmed("evolved wins"))
    assert told not in Reader(render(won, life.attempts)).text


def test_the_planted_life_shows_every_table_that_it_has_evidence_for(read):
    for title in (
        "How the run changed itself",
        "What the gates worried about",
        "Alarms of the monitors",
        "Fusion: how members were kept together",
        "Do inherited weights help or hinder?",
        "What the time bought",
    ):
        assert title in read.texts, title


def test_every_cell_names_its_column_for_readers_on_a_phone(read):
    cells = [attrs for tag, attrs in read.tags if tag == "td"]
    assert cells
    assert all(attrs.get("data-label") for attrs in cells)


def test_the_page_without_plotly_stays_small(life, confirmed):
    page = render(life.report(confirmed("evolved wins")), life.attempts)
    assert len(page) - len(get_plotlyjs()) < 300_000


def test_the_losses_of_all_weights_stand_beside_those_that_ship(life, page):
    assert life.shipped.serves == "ema"
    rows = re.findall(r"<tr>(.*?)</tr>", page[page.index("Which of its weights ship") :])
    told = {name: row for name in ("(live)", "(EMA)", "(shadow)") for row in rows if name in row}
    for name, row in zip(("live", "ema", "shadow"), told.values(), strict=True):
        assert f">{life.shipped.weights_bpb[name]:.4f}<" in row
    assert [name for name, row in told.items() if ">ship<" in row] == ["(EMA)"]


def test_a_report_of_a_run_that_never_told_them_has_no_such_table(life):
    old = changed(life.shipped, weights_bpb={})
    assert "Which of its weights ship" not in render(life.report(shipped=old), life.attempts)
