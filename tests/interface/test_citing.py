"""What ``cite=true`` prints: the sources of exactly the parts of a run, as BibTeX that a strict reader takes."""

from __future__ import annotations

import re
import sys
from collections import Counter

import pytest
import yaml
from torch import nn

import se_framework as se
from divergences import Divergence
from se_framework import __main__ as command
from se_framework.commands.citing import FILE, OF_TORCH, cited, references, sources_of
from se_framework.config.build import build, find
from se_framework.config.composing import config_dir, groups
from se_framework.data.digits import Digits
from se_framework.evaluation.scores import ALL

SMALL = ["data=ring8", "device=cpu", "loop.batch_size=16", "progress=false"]
NEEDED = {"article": {"journal"}, "inproceedings": {"booktitle"}, "book": {"publisher"}, "misc": {"howpublished"}}
MAY = {"author", "title", "year", "volume", "number", "pages", "series"}


def parse(text):
    """Return the entries of BibTeX by key, {field: value}; strict, by counting braces.

    Raises:
        ValueError: anything stands there that is neither a comment, nor an entry of fields in braces.
    """
    found, at = {}, 0
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif text[at] == "%":
            at = text.find("\n", at) % (len(text) + 1)
        else:
            head = re.compile(r"@(\w+)\{([A-Za-z0-9]+),").match(text, at)
            if head is None:
                raise ValueError(f"no entry: {text[at : at + 40]!r}")
            at, fields = head.end(), {"": head[1]}
            while (field := re.compile(r"\s*(\w+)\s*=\s*\{").match(text, at)) is not None:
                at, depth = field.end(), 1
                start = at
                while depth:
                    depth += {"{": 1, "}": -1}.get(text[at], 0)
                    at += 1
                if field[1] in fields:
                    raise ValueError(f"{head[2]} has two of {field[1]}")
                fields[field[1]] = text[start : at - 1]
                at += text[at : at + 1] == ","
            end = re.compile(r"\s*\}").match(text, at)
            if end is None or head[2] in found:
                raise ValueError(f"{head[2]} does not end, or is there twice")
            at, found[head[2]] = end.end(), fields
    return found


def test_the_file_is_bibtex_and_every_entry_is_whole():
    text = FILE.read_text(encoding="ascii")
    entries = parse(text)
    assert list(entries) == list(references()) and len(entries) == text.count("\n@")
    for key, fields in entries.items():
        kind = fields.pop("")
        assert set(fields) - MAY == NEEDED[kind] and {"author", "title", "year"} <= set(fields), key
        assert re.fullmatch(r"(19|20)\d\d", fields["year"]) and fields["year"] in key, key
        names = fields["author"].split(" and ")
        assert all(name == "others" or re.fullmatch(r"[^,]+, [^,]+", name) for name in names), key
        first = re.sub(r"\{\\.\{?(\w)\}?\}|[^A-Za-z]", r"\1", names[0].partition(",")[0]).lower()
        assert key.startswith(re.split(r"\d", key)[0]) and first == re.split(r"\d", key)[0], (key, first)
        assert re.fullmatch(r"\d+(--\d+)?", fields.get("pages", "1")) and fields.get("volume", "1").isdecimal(), key


@pytest.mark.parametrize(
    "text", ["@article{a, title = {x}", "@article{a, title = {x}} y", "@article{a,b}", "@a{b,}@a{b,}"]
)
def test_the_reader_is_strict(text):
    with pytest.raises((ValueError, IndexError)):
        parse(text)


def targets(node):
    """Yield every class that a choice names."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from targets(value)


CHOICES = [(g, c) for g, names in groups([config_dir()]).items() if g not in ("experiment", "tracker") for c in names]


def test_every_shipped_choice_declares_its_sources_or_that_it_has_none():
    seen = Counter()
    for group, choice in CHOICES:
        for path in targets(yaml.safe_load((config_dir() / group / f"{choice}.yaml").read_text())):
            target = find(path, group)
            declared = getattr(target, "sources", OF_TORCH.get(path))
            assert isinstance(declared, (tuple, property)), f"{group}={choice}: {path} declares no sources"
            assert isinstance(declared, property) or all(key in references() for key in declared), path
            seen.update(declared if isinstance(declared, tuple) else ())
    for score in ALL:
        assert all(key in references() for key in score.sources)
    of_instances = {"genevay2018learning", "feydy2019interpolating", "sejourne2019sinkhorn", "gulrajani2017improved",
                    "petzka2018regularization", "ruderman2012tighter", "lim2017geometric", "mao2017least",
                    "zhang2019self", "brock2019large", "miyato2018cgans"}  # fmt: skip
    used = {*seen, *(key for score in ALL for key in score.sources), *of_instances, "hu2022toward"}
    assert used == set(references()), "nothing stands in the file that no part names"


def made(group, choice, **more):
    return build(yaml.safe_load((config_dir() / group / f"{choice}.yaml").read_text()) | more, group)


@pytest.mark.parametrize(
    ("group", "choice", "more", "keys"),
    [
        ("divergence", "sinkhorn", {}, "genevay2018learning feydy2019interpolating"),
        ("divergence", "sinkhorn_unbalanced", {}, "genevay2018learning feydy2019interpolating sejourne2019sinkhorn"),
        ("divergence", "hinge", {}, "lim2017geometric miyato2018spectral"),
        ("divergence", "least_squares", {}, "mao2017least"),
        ("divergence", "raised_link", {}, "nowozin2016fgan"),
        ("divergence", "kl", {}, "nguyen2010estimating nowozin2016fgan"),
        ("auxiliary", "dual", {}, "nguyen2010estimating"),
        ("auxiliary", "dual_probability", {}, "ruderman2012tighter"),
        ("auxiliary", "data", {}, ""),
    ],
)
def test_parts_say_what_this_one_of_them_comes_from(group, choice, more, keys):
    assert sources_of(made(group, choice, **more)) == tuple(keys.split())


def shown_in(text):
    """Return the keys of the entries, and the comments by part."""
    comments = dict(line[2:].split(": ", 1) for line in text.splitlines() if line.startswith("% "))
    return list(parse(text)), comments


def test_a_run_cites_exactly_its_parts():
    found, why = shown_in(cited(se.compose("wgan_gp", SMALL)))
    scores = [
        "metz2017unrolled",
        "bonneel2015sliced",
        "gretton2012kernel",
        "lopezpaz2017revisiting",
        "naeem2020reliable",
    ]
    assert sorted(found) == sorted(
        ["hu2022toward", "goodfellow2014generative", "arjovsky2017wasserstein", "nguyen2010estimating",
         "gulrajani2017improved", "kingma2015adam", *scores]
    )  # fmt: skip
    assert why["divergence"] == "arjovsky2017wasserstein" and why["metric.penalty"] == "gulrajani2017improved"
    assert why["optimizer"] == "kingma2015adam" and why["data"] == why["score modes"] == "metz2017unrolled"
    assert "without a source" not in why and "metric" not in why


@pytest.mark.parametrize(
    ("experiment", "more", "there", "absent"),
    [
        ("wgan_clip", [], ["arjovsky2017wasserstein", "tieleman2012rmsprop"], ["gulrajani2017improved"]),
        ("wgan_gp", ["metric=mlp_gradient_penalty_one_sided"], ["petzka2018regularization"], ["mescheder2018training"]),
        ("mle_flow", [], ["durkan2019neural"], ["dinh2017density", "goodfellow2014generative"]),
        ("flow_gan", [], ["dinh2017density", "arjovsky2017wasserstein"], ["durkan2019neural"]),
        ("nonsaturating_gan", [], ["goodfellow2014generative", "mescheder2018training"], ["nowozin2016fgan"]),
        ("digits", ["data=digits"], ["alpaydin1998optical", "heusel2017gans"], ["uria2013rnade"]),
        ("fgan", ["divergence=lipschitz_alpha", "metric=groupsort"], ["birrell2022fgamma", "cressie1984multinomial",
         "anil2019sorting"], ["lin1991divergence"]),
        ("wgan_gp", ["ensemble.size=2"], ["gulrajani2017improved"], []),
        ("wgan_gp", ["stages=[{rounds: 2}, {rounds: 2, optimizer: sgd}]"], ["kingma2015adam", "robbins1951stochastic"],
         []),
        ("wgan_gp", ["score=recall"], ["kynkaanniemi2019improved"], []),
    ],
)  # fmt: skip
def test_what_a_choice_brings(experiment, more, there, absent, monkeypatch):
    monkeypatch.setattr(Digits, "features", object())  # a classifier, trained where it is asked for
    found, _ = shown_in(cited(se.compose(experiment, [*SMALL, *more])))
    assert set(there) <= set(found) and not set(absent) & set(found)


class Own(Divergence):
    """A divergence of a user's own, through its dual."""

    has_dual = True

    def link(self, v):
        """Return v."""
        return v

    def conjugate(self, v):
        """Return exp(v - 1)."""
        return (v - 1).exp()

    def value(self, v):
        """Return u log u at u = exp(v - 1)."""
        return (v - 1) * (v - 1).exp()

    def log_tilt(self, v):
        """Return log u."""
        return v - 1


ENTRY = (
    "@misc{me2026idea,\n  author = {Me, I.},\n  title = {An Idea},\n  howpublished = {A Drawer},\n  year = {2026}\n}"
)


def test_objects_of_ones_own_are_named_or_bring_their_entry():
    words = [w for w in SMALL if not w.startswith("data")]
    text = cited(se.compose("vanilla_gan", words, data=Digits(), divergence=Own()))
    assert shown_in(text)[1]["without a source"] == "divergence (Own)"
    own = Own()
    own.sources = (ENTRY, "nowozin2016fgan")
    text = cited(se.compose("vanilla_gan", words, data=Digits(), divergence=own))
    assert ENTRY in text and shown_in(text)[1]["divergence"] == "me2026idea, nowozin2016fgan"
    assert sources_of(nn.Linear(1, 1)) is None and sources_of(type("Odd", (), {"sources": [1]})()) is None


def test_the_command_prints_and_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for words in (["cite=true"], ["cite=true", "dry_run=true"]):
        monkeypatch.setattr(sys, "argv", ["se-train", "experiment=wgan_gp", *SMALL, *words])
        command.main()
        told = capsys.readouterr().out
        assert ("Players, in the order" in told) == (len(words) == 2) and not any(tmp_path.iterdir())
        assert "gulrajani2017improved" in parse(told[told.index("% equation") :])
