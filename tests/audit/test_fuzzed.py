"""Audits, decisions and maps that were damaged at random: only InputError may come out."""

import json
import random
import shutil
from contextlib import suppress

import pytest

from nnunet_lopsided.audit.decisions import audit_and_decisions, decisions_above
from nnunet_lopsided.audit.stored import read_audit
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import read_image

ODD: tuple[object, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    10**30,
    1e308,
    "",
    "\ud800",
    "../a",
    "²",
    [],
    {},
    [[]],
    {"a": None},
    "nan",
    float("nan"),
)
WORDS = (
    "",
    "nan",
    "-inf",
    "1e999",
    "5",
    "-1",
    "²",
    "1_0",
    "99999999999999999999",
    '"',
    "\x00",
    "../p00",
    "a,b",
    "\ufeff",
)


def damaged_json(content, chance):
    """One value somewhere is another, is missing, or has another name."""
    places = []

    def walk(value):
        for key in value if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            if isinstance(value[key], dict | list):
                walk(value[key])

    walk(content)
    within, key = chance.choice(places)
    if isinstance(within, dict) and chance.random() < 0.3:
        moved = within.pop(key)
        if chance.random() < 0.5:
            within[chance.choice(WORDS)] = moved
    else:
        within[key] = chance.choice(ODD)
    return json.dumps(content).encode()


def damaged_table(text, chance):
    """One cell is another, or lines are lost or doubled."""
    lines = text.splitlines()
    i = chance.randrange(len(lines))
    if chance.random() < 0.7:
        cells = lines[i].split(",")
        cells[chance.randrange(len(cells))] = chance.choice(WORDS)
        lines[i] = ",".join(cells)
    else:
        lines[i : i + 1] = lines[i : i + 1] * chance.choice((0, 2))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def damaged_bytes(content, chance):
    """Cut off, or some bits flipped."""
    if chance.random() < 0.3:
        return content[: chance.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(chance.randrange(1, 6)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def use(audit_folder, decisions, labels):
    audit = read_audit(audit_folder)
    decisions_above(audit, 0.5)
    audit_and_decisions(decisions, audit_folder)
    for case in sorted({candidate.case for candidate in audit.candidates})[:1]:
        label = labels / f"{case}.nii.gz"
        for edited in (False, True):
            with suppress(InputError):
                audit.read_map(case, label, read_image(label), ".nii.gz", edited)


@pytest.mark.parametrize("what", ["audit.json", "audit.csv", "decisions.csv", "decisions.json", "map"])
def test_only_input_errors_come_out(written, tmp_path, what):
    folder = tmp_path / "damaged"
    shutil.copytree(written.audit, folder)
    audit = read_audit(folder)
    rows = [(c.case, c.number, ("accept", "reject", "")[i % 3]) for i, c in enumerate(audit.candidates[:9])]
    table = "audit,case,candidate,decision\n" + "".join(f"{audit.id},{c},{n},{d}\n" for c, n, d in rows)
    (tmp_path / "decisions.csv").write_text(table)
    listed = [{"case": c, "candidate": n, "decision": d} for c, n, d in rows]
    (tmp_path / "decisions.json").write_text(json.dumps({"audit": audit.id, "decisions": listed}))
    decisions = tmp_path / (what if what.startswith("decisions") else "decisions.csv")
    case = min(candidate.case for candidate in audit.candidates)
    path = {"audit.json": folder / what, "audit.csv": folder / what, "map": folder / "maps" / f"{case}.nii.gz"}.get(
        what, decisions
    )
    content, n_refused = path.read_bytes(), 0
    use(folder, decisions, written.raw / "labelsTr")
    for seed in range(120 if what != "map" else 40):
        chance = random.Random(f"{what} {seed}")
        if what == "map" or chance.random() < 0.3:
            path.write_bytes(damaged_bytes(content, chance))
        elif path.suffix == ".json":
            path.write_bytes(damaged_json(json.loads(content), chance))
        else:
            path.write_bytes(damaged_table(content.decode(), chance))
        try:
            use(folder, decisions, written.raw / "labelsTr")
        except InputError:
            n_refused += 1
        except Exception as error:
            pytest.fail(f"{what}, seed {seed}: {type(error).__name__}: {error}")
    assert n_refused > 20 or what == "map"
