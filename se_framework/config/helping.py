"""The help of ``se-train``: one screen by topic, and more of a topic that is asked for. It imports no torch.

se-train --help             what there is, on one screen
se-train --help TOPIC       a group with its choices in words, or a key with its values
se-train --help all         every choice and every value
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from se_framework.config.files import config_dir, groups
from se_framework.errors import ConfigError, nearest

EQUATION = "min_theta max_phi min_q  -alpha H(q) + beta D(q, p_theta) - E_q[f_phi] + E_pd[f_phi]"
SECTIONS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("Equation", ("experiment", "divergence", "metric", "auxiliary", "model"), ("equation", "plus", "allow")),
    ("Data", ("data",), ("workers",)),
    ("Training", ("optimizer",), ("loop", "players", "stages", "ensemble", "seed")),
    ("Run", ("tracker",), ("resume", "resume_allow", "trust", "dry_run", "cite", "score", "callbacks", "progress")),
    ("Performance", (), ("performance", "device", "threads", "deterministic")),
)
"""Topics in order, each with its groups and its top-level keys."""
WIDTH = 112
EXAMPLES = """\
Examples
  se-train                                      the default: an adversarial model of handwritten digits
  se-train experiment=wgan_gp data=moons seed=1 loop.rounds=2000
  se-train experiment=fgan divergence=kl dry_run=true
  se-train -m experiment=fgan divergence=kl,pearson seed=0,1,2     a sweep; into hydra.sweep.dir=DIR
  se-train experiment=wgan_gp resume=auto       go on with the newest run of this configuration, or start it
  se-train resume=RUN_DIR                       then: se-sample RUN_DIR out=x.png   se-eval RUN_DIR
  A path with =, (, ~ or a comma needs quotes:  'data.path="~/my (file).npy"'

Flags
  --help TOPIC           more of a group or key above (--help divergence, --help loop), or all
  --multirun, -m         a sweep over KEY=VALUE,VALUE...
  --config-dir, -cd DIR  a folder of configurations of your own: GROUP/CHOICE.yaml
  --cfg, -c job          print the configuration, parts included (hydra, all: with Hydra's own part)
  --shell-completion     completion: eval "$(se-train -sc install=bash)"
  --hydra-help           Hydra's other flags
"""


def usage(config_dirs: Sequence[Path], topic: str = "") -> str:
    """Return the help.

    Args:
        config_dirs: the user's folders of configurations.
        topic: a group or top-level key, or ``all``; empty for one screen.

    Raises:
        ConfigError: there is no such topic.
    """
    folders, blocks = [config_dir(), *config_dirs], values()
    known = groups(folders)
    if topic == "all":
        return f"{EQUATION}\n\n{_choices(known)}\n\nValues (KEY=VALUE)\n\n{_all_values()}\n\n{EXAMPLES}"
    if topic in known:
        return f"{topic}=CHOICE\n" + "\n".join(_of_group(topic, known[topic], folders))
    if topic in blocks:
        return f"{blocks[topic]}\n\n{topic}.KEY=VALUE" if "\n" in blocks[topic] else blocks[topic]
    if topic:
        raise ConfigError(f"--help {topic}: no such topic; {nearest(topic, ['all', *known, *blocks])}")
    lines = [f"se-train GROUP=CHOICE KEY=VALUE ...: train p_theta by the Standard Equation\n  {EQUATION}", ""]
    placed = {group for _, own, _ in SECTIONS for group in own}
    others = (("Yours", tuple(group for group in known if group not in placed), ()),)
    for title, own, keys in (*SECTIONS, *others):
        if own or keys:
            lines += [title, *(_wrapped(f"{group}=", " ".join(known[group])) for group in own)]
            lines += [_wrapped(key, text) for key, text in _summary(keys, blocks)]
    return "\n".join([*lines, "", EXAMPLES.rstrip()])


def values() -> dict[str, str]:
    """Return the text of every top-level value of ``config.yaml``, with its remarks, by its key."""
    found: dict[str, str] = {}
    for line in _all_values().splitlines():
        key = re.match(r"(\w+):", line)
        if key:
            found[key[1]] = line
        elif line.startswith(" "):
            found[list(found)[-1]] += f"\n{line}"
    return found


def _all_values() -> str:
    """Return what ``config.yaml`` says of values: all but the list of choices and Hydra's own part."""
    text = (config_dir() / "config.yaml").read_text(encoding="utf-8")
    return text.partition("\n\n")[2].partition("\nhydra:")[0].rstrip()


def _summary(keys: Sequence[str], blocks: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield a line for each key that holds others, with their names, and one for all that hold a value."""
    plain = []
    for key in keys:
        inner = re.findall(r"^  (\w+):", blocks[key], flags=re.M)
        if inner:
            yield f"{key}.", " ".join(inner)
        else:
            plain.append(key)
    if plain:
        yield "", " ".join(plain)


def _wrapped(head: str, text: str) -> str:
    """Return words behind a head, in lines of :data:`WIDTH` characters."""
    start = f"  {head:13} " if head else "  "
    return textwrap.fill(text, WIDTH, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False)


def _choices(known: dict[str, list[str]]) -> str:
    return "Groups (GROUP=CHOICE)\n" + "\n".join(_wrapped(f"{group}=", " ".join(own)) for group, own in known.items())


def _of_group(group: str, choices: Sequence[str], folders: Sequence[Path]) -> Iterator[str]:
    """Yield each choice with the first remark of its file, and the keys that it has."""
    for choice in choices:
        file = next(f for folder in folders if (f := folder / group / f"{choice}.yaml").is_file())
        text = file.read_text(encoding="utf-8", errors="replace")
        remark = re.search(r"^# (?!@package)(.*)", text, flags=re.M)
        keys = re.findall(r"^(?!_target_|defaults)(\w+):", text, flags=re.M) if group != "experiment" else []
        told = ([remark[1].strip()] if remark else []) + [f"keys: {' '.join(keys)}"] * bool(keys)
        yield f"  {choice:28} {'; '.join(told)}".rstrip()
