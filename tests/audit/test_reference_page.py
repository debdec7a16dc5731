"""docs/reference/audit.md says what there is."""

from pathlib import Path

import pytest

from nnunet_lopsided.audit.writing import COLUMNS
from nnunet_lopsided.commands.audit import _apply_parser, _parser, _score_parser
from nnunet_lopsided.commands.audit_agree import agree_parser
from nnunet_lopsided.commands.audit_export import export_parser, import_parser

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "audit.md"


@pytest.mark.parametrize(
    "parser", [_parser(), _apply_parser(), _score_parser(), agree_parser(), export_parser(), import_parser()]
)
def test_every_option_is_described(parser):
    text = PAGE.read_text(encoding="utf-8")
    options = [action.option_strings[0] for action in parser._actions if action.option_strings]
    assert [option for option in options if option not in ("-h", "--version") and option not in text] == []


def test_every_column_is_described():
    text = PAGE.read_text(encoding="utf-8").replace("centroid_z/y/x", "centroid_z centroid_y centroid_x")
    assert [column for column in COLUMNS if column not in text] == []
