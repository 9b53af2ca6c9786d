import copy
import json
import pickle

import numpy as np
import pytest

from pp_env.names import Names

CASES = {"": [], "still_held": ["still_held"], "not_on_table, still_held": None}


@pytest.mark.parametrize("text", CASES)
def test_names_are_a_text_that_iterates_over_names(text):
    expected = CASES[text] if CASES[text] is not None else ["not_on_table", "still_held"]
    names = Names.of(expected)
    for same in (names, copy.deepcopy(names), pickle.loads(pickle.dumps(names))):
        assert same == text
        assert list(same) == expected
        assert ", ".join(same) == text
        assert json.loads(json.dumps(same)) == text
        assert bool(same) == bool(expected)


def test_a_part_of_a_name_is_not_among_them():
    names = Names.of(["not_on_table", "still_held"])
    assert "still_held" in names
    assert "held" not in names
    assert "" not in names


def test_different_numbers_of_names_form_an_array():
    batch = np.array([Names.of([]), Names.of(["a", "b"])])
    assert batch.shape == (2,)
    assert batch.tolist() == ["", "a, b"]
