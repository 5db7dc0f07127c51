"""MOSI-Subjectivity's files, as we ask for them: three questions by hand, and what is wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annorun.dataset.mosi_subjectivity import EMOTIONS, mosi_subjectivity
from annorun.errors import ConfigError

RATINGS = """clip,rater,any,most,all
v_1,r2,yes,Happiness,happiness; surprise
v_1,r1,no,,
v_2,r1,yes,anger,anger
v_2,r2,yes,fear,fear;anger;sadness
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "transcripts.csv").write_text('clip,text\nv_2,"Oh, no"\nv_1,great\nv_3,unrated\n')
    (tmp_path / "ratings.csv").write_text(RATINGS)
    return tmp_path


def read(folder: Path, question: str, fold: int = 0) -> Any:
    rng = np.random.default_rng(0)
    return mosi_subjectivity(rng=rng, path=str(folder), question=question, folds=2, fold=fold)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (
            "any",
            {("v_1", "r1", "no"), ("v_1", "r2", "yes"), ("v_2", "r1", "yes"), ("v_2", "r2", "yes")},
        ),
        ("most", {("v_1", "r2", "happiness"), ("v_2", "r1", "anger"), ("v_2", "r2", "fear")}),
        (
            "all",
            {
                *[("v_1", "r2", e) for e in ("happiness", "surprise")],
                *[("v_2", "r2", e) for e in ("fear", "anger", "sadness")],
                ("v_2", "r1", "anger"),
                ("v_1", "r1", "none"),
            },
        ),
    ],
)
def test_each_question_by_hand(folder: Path, question: str, expected: set[Any]) -> None:
    found = set()
    for fold in (0, 1):
        items, votes = read(folder, question, fold)
        assert items.names == ["v_2", "v_1"] and items.inputs["text"] == ["Oh, no", "great"]
        assert votes.multi_label == (question == "all")
        assert (items.split[votes.item] == "train").all()
        assert (items.split[items.held_out.item] == "test").all()
        for part in (votes, items.held_out):
            found |= {
                (items.names[i], items.annotator_names[a], items.classes()[z])
                for i, a, z in zip(part.item, part.annotator, part.label, strict=True)
            }
    assert found == expected
    assert (
        items.classes()
        == {
            "any": ["no", "yes"],
            "most": list(EMOTIONS),
            "all": [*EMOTIONS, "none"],
        }[question]
    )


def test_faults_are_named_all_at_once(folder: Path) -> None:
    lines = ["v_9,r1,yes,anger,anger", "v_1,r2,yes,joy,fear;fear", "v_1,,yes,fear,"]
    (folder / "ratings.csv").write_text(RATINGS + "\n".join(lines) + "\n")
    for question, words in (("most", "'joy'; allowed: anger"), ("all", "each once")):
        with pytest.raises(ConfigError) as caught:
            read(folder, question)
        found = "\n".join(caught.value.faults)
        assert len(caught.value.faults) == 4
        for part in ("line 6: clip 'v_9'", "rated v_1 in line 2 already", words, "rater ''"):
            assert part in found


def test_what_is_missing(folder: Path) -> None:
    (folder / "ratings.csv").write_text("clip,rater,any\nv_1,r1,\n")
    with pytest.raises(ConfigError, match="no column most"):
        read(folder, "most")
    with pytest.raises(ConfigError, match="no answer to any"):
        read(folder, "any")
    (folder / "ratings.csv").unlink()
    with pytest.raises(ConfigError, match=r"ratings.csv .*authors of arXiv 2211\.13196.*emobank"):
        read(folder, "any")
