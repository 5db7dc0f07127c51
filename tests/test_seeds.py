"""Named children of a seed."""

import subprocess
import sys

from annorun.seeds import child, rng


def test_children_differ_by_seed_and_name() -> None:
    names = ("weights", "order", "dropout", "noise")
    found = {child(seed, name) for seed in range(50) for name in names}
    assert len(found) == 50 * len(names)
    assert all(0 <= c < 2**63 for c in found)


def test_zero_is_a_seed_like_any_other() -> None:
    assert rng(0, "a").random() != rng(1, "a").random()
    assert rng(0, "a").random() == rng(0, "a").random()
    assert rng(0, "a").random() != rng(0, "b").random()


def test_names_cannot_be_mixed_up_with_seeds() -> None:
    assert child(1, "1/a") != child(11, "/a")


def test_the_same_in_every_process() -> None:
    code = "from annorun.seeds import child; print(child(7, 'weights'))"
    for hashing in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": hashing},
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(done.stdout) == child(7, "weights")
