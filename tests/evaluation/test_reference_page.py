"""docs/reference/evaluation.md says what there is, and its example runs."""

import re
from pathlib import Path

import pytest

from nnunet_lopsided.commands.evaluate_options import evaluate_parser
from nnunet_lopsided.evaluation import evaluate_folder
from nnunet_lopsided.evaluation.rows import CANDIDATE_COLUMNS, CASE_COLUMNS, LESION_COLUMNS, PATIENT_COLUMNS
from nnunet_lopsided.evaluation.summary_json import summary_dict

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "evaluation.md"


@pytest.fixture(scope="module")
def text():
    return PAGE.read_text(encoding="utf-8")


def test_the_example_runs(text):
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(example, str(PAGE), "exec"), {})


def test_every_key_of_the_summary_is_described(two_cases, text):
    summary = summary_dict(evaluate_folder(two_cases.references, two_cases.predictions, n_replicates=100))
    keys = {*summary, *summary["metrics"], *summary["counts"], *summary["details"], *summary["by_diameter"][0]}
    keys -= {"curves", "false_positive_volume_mm3_per_lesion_free_case"}  # described part by part, and as `..._per`
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []


def test_every_column_is_described(text):
    columns = {*CASE_COLUMNS, *LESION_COLUMNS, *CANDIDATE_COLUMNS, *PATIENT_COLUMNS}
    assert [column for column in sorted(columns) if f"`{column}`" not in text] == []


def test_every_rule_of_the_command_is_described(text):
    rules = next(group for group in evaluate_parser()._action_groups if group.title and group.title.startswith("rules"))
    options = [option for action in rules._group_actions for option in action.option_strings]
    assert [option for option in options if f"`{option}`" not in text] == []
