import io
import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from helpers.shared import SHARED
from softstart.analysis import (
    CELL,
    adaptation_area,
    arg_table,
    average_relative_gain,
    bootstrap_interval,
    compare_methods,
    largest_budget,
    refuse_mixed,
    relative_gains,
)
from softstart.analysis.arg import symmetric
from softstart.analysis.permutation import seeds_t_p, sign_flip_p
from softstart.cli import app as cli
from softstart.errors import SoftstartError

PAPER = SHARED / "paper" if SHARED else None
SAMPLES = (13, 21, 42)


def table(scores, **columns):
    """Result rows from {method: {task: {sample: test}}}."""
    rows = [
        {"method": method, "task": task, "sample": sample, "test": test, **columns}
        for method, tasks in scores.items()
        for task, samples in tasks.items()
        for sample, test in (
            samples if isinstance(samples, dict) else dict(zip(SAMPLES, samples, strict=True))
        ).items()
    ]
    return pd.DataFrame(rows)


def cell(frame, method):
    return frame[frame["method"] == method].iloc[0]


@pytest.mark.skipif(PAPER is None or not (PAPER / "arg.csv").is_file(), reason="shared/paper is not here")
def test_reproduces_every_published_arg():
    rows, published = pd.read_csv(PAPER / "results.csv"), pd.read_csv(PAPER / "arg.csv")
    ours = average_relative_gain(rows)
    cell = [column for column in CELL if column != "budget"]
    both = published.merge(ours, on=cell, suffixes=("_published", ""), validate="one_to_one")
    assert len(both) == len(published) == len(ours)
    for column in ("arg", "median_relgain", "n_tasks"):
        np.testing.assert_allclose(both[column], both[f"{column}_published"], rtol=0, atol=1e-9)
    # Rows and columns in another order, and text in place of numbers, are the same table.
    shuffled = rows.sample(frac=1, random_state=0)[rows.columns[::-1]].astype({"test": str})
    pd.testing.assert_frame_equal(average_relative_gain(shuffled), ours)


@pytest.mark.skipif(PAPER is None or not (PAPER / "arg.csv").is_file(), reason="shared/paper is not here")
def test_unfinished_published_cells_are_flagged():
    ours = average_relative_gain(pd.read_csv(PAPER / "results.csv"))
    flagged = set(
        ours.loc[~ours["complete"], ["setting", "method", "backbone", "variant"]].itertuples(index=False)
    )
    assert ("cls2cls", "multi", "t5-large", "up128shot") in flagged  # 4 of 10 tasks
    assert ("nopara2para", "maml", "t5-base", "main") in flagged  # 2 of 5 samples on one task
    assert ("cls2cls", "maml", "t5-large", "main") not in flagged


def test_a_worked_example():
    rows = table(
        {"pt": {"a": [0.2, 0.4, 0.6], "b": [0.5, 0.5, 0.5]}, "maml": {"a": [0.5] * 3, "b": [0.4] * 3}}
    )
    gains = relative_gains(rows)
    maml = gains[gains["method"] == "maml"].set_index("task")
    assert maml.loc["a", "gain"] == pytest.approx(25)
    assert maml.loc["b", "gain"] == pytest.approx(-20)
    assert maml.loc["a", "abs_gain"] == pytest.approx(10)
    summary = cell(average_relative_gain(rows), "maml")
    assert summary["arg"] == pytest.approx(2.5)
    assert (summary["wins"], summary["ties"], summary["losses"]) == (1, 0, 1)
    assert summary["complete"]
    assert cell(average_relative_gain(rows), "pt")["ties"] == 2
    against_maml = average_relative_gain(rows, baseline="maml")
    assert cell(against_maml, "pt")["arg"] == pytest.approx((-20 + 25) / 2)


def test_only_samples_both_have_are_compared():
    rows = table({"pt": {"a": {13: 0.5, 21: 0.1}}, "maml": {"a": {13: 0.6, 42: 0.9}}})
    gain = cell(relative_gains(rows), "maml")
    assert (gain["baseline"], gain["score"], gain["n_samples"]) == (0.5, 0.6, 1)
    assert not cell(average_relative_gain(rows), "maml")["complete"]


def test_a_score_that_is_nan_is_no_score():
    rows = table(
        {
            "pt": {"a": [0.5, 0.5, 0.5]},
            "maml": {
                "a": [0.6, math.nan, 0.8],
            },
        }
    )
    gain = cell(relative_gains(rows), "maml")
    assert gain["gain"] == pytest.approx(40)
    assert gain["n_samples"] == 2
    assert not cell(average_relative_gain(rows), "maml")["complete"]


@pytest.mark.parametrize("nothing", [0.0, -0.1])
def test_no_positive_baseline_no_relative_gain_and_it_is_counted(nothing):
    rows = table({"pt": {"a": [nothing] * 3, "b": [0.5] * 3}, "maml": {"a": [0.3] * 3, "b": [0.6] * 3}})
    gains = relative_gains(rows)
    assert math.isnan(gains[(gains["method"] == "maml") & (gains["task"] == "a")]["gain"].iloc[0])
    summary = cell(arg_table(rows), "maml")
    assert summary["arg"] == pytest.approx(20)
    assert (summary["n_tasks"], summary["n_undefined"], summary["n_missing"]) == (1, 1, 0)
    assert summary["wins"] == 2
    assert summary["low"] == pytest.approx(20)
    assert summary["complete"]


def test_a_method_with_fewer_tasks_than_its_peers_is_incomplete():
    rows = table({"pt": {"a": [0.5] * 3, "b": [0.5] * 3}, "maml": {"a": [0.6] * 3}})
    maml = cell(average_relative_gain(rows), "maml")
    assert (maml["n_missing"], maml["complete"]) == (1, False)
    # A study that declares more than anybody has yet makes every cell incomplete.
    assert not average_relative_gain(rows, planned=(2, 5))["complete"].any()
    assert cell(average_relative_gain(rows, planned=(2, 3)), "pt")["complete"]


def test_which_variant_of_the_baseline():
    main = table({"pt": {"a": [0.5] * 3}}, variant="main")
    down = table({"pt": {"a": [0.8] * 3}, "maml": {"a": [0.6] * 3}}, variant="down32shot")
    up = table({"maml": {"a": [0.6] * 3}}, variant="up32shot")
    backup = table({"pt": {"a": [0.1] * 3}}, variant="yelp_onlybs8_backup")
    summary = average_relative_gain(pd.concat([main, down, up, backup]))
    maml = summary[summary["method"] == "maml"].set_index("variant")["arg"]
    assert maml["down32shot"] == pytest.approx(-25)
    assert maml["up32shot"] == pytest.approx(20)
    assert "yelp_onlybs8_backup" not in set(summary["variant"])


def test_a_baseline_of_another_backbone_is_no_baseline():
    pt = table({"pt": {"a": [0.5] * 3}}, backbone="small")
    maml = table({"maml": {"a": [0.6] * 3}}, backbone="large")
    summary = cell(arg_table(pd.concat([pt, maml])), "maml")
    assert math.isnan(summary["arg"])
    assert math.isnan(summary["low"])
    assert (summary["n_tasks"], summary["n_missing"], summary["complete"]) == (0, 1, False)


scores = st.floats(0.05, 1)


@given(st.lists(st.lists(scores, min_size=3, max_size=3), min_size=4, max_size=6), st.floats(0.2, 3))
def test_scaling_every_score_gives_exactly_that_gain(pt, factor):
    tasks = {f"task{i}": values for i, values in enumerate(pt)}
    scaled = {task: [factor * value for value in values] for task, values in tasks.items()}
    rows = table({"pt": tasks, "maml": scaled})
    summary, interval = cell(average_relative_gain(rows), "maml"), bootstrap_interval(rows, resamples=100)
    gains = [summary["arg"], summary["median_relgain"], *cell(interval, "maml")[["low", "high"]]]
    assert gains == pytest.approx([100 * (factor - 1)] * 4, abs=1e-9)


@pytest.mark.parametrize("ragged", [False, True])
def test_the_interval_is_that_of_a_plain_loop(ragged):
    rng = np.random.default_rng(1)
    tasks = {f"t{i}": dict(zip(SAMPLES, rng.uniform(0.2, 0.9, 3), strict=True)) for i in range(5)}
    better = {t: {s: min(1, v * rng.uniform(0.7, 1.6)) for s, v in row.items()} for t, row in tasks.items()}
    if ragged:
        del better["t0"][21], better["t3"][13]
    ours = cell(
        bootstrap_interval(table({"pt": tasks, "maml": better}), interval="percentile", resamples=20_000),
        "maml",
    )

    def resample():
        gains = []
        for task in rng.choice(list(better), size=len(better)):
            drawn = rng.choice(list(better[task]), size=len(better[task]))
            pt, maml = (np.mean([source[task][s] for s in drawn]) for source in (tasks, better))
            gains.append((maml - pt) / pt * 100)
        return np.mean(gains)

    low, high = np.percentile([resample() for _ in range(4000)], [2.5, 97.5])
    assert ours["low"] == pytest.approx(low, abs=0.06 * (high - low))
    assert ours["high"] == pytest.approx(high, abs=0.06 * (high - low))


def test_intervals_are_seeded_and_do_not_depend_on_other_cells():
    rng = np.random.default_rng(2)
    scores = {m: {t: list(rng.uniform(0.2, 0.9, 3)) for t in "abcd"} for m in ("pt", "maml", "reptile")}
    three = bootstrap_interval(table(scores), resamples=500)
    two = bootstrap_interval(table({m: scores[m] for m in ("pt", "maml")}), resamples=500)
    pd.testing.assert_series_equal(cell(three, "maml"), cell(two, "maml"), check_names=False)
    assert (
        cell(bootstrap_interval(table(scores), resamples=500, seed=1), "maml")["low"]
        != cell(three, "maml")["low"]
    )


def test_meta_seeds_are_averaged_and_widen_the_interval():
    pt = {t: [0.5] * 3 for t in "abcd"}
    lucky, unlucky = ({t: [value] * 3 for t in "abcd"} for value in (0.6, 0.4))
    rows = pd.concat(
        [
            table({"pt": pt, "maml": lucky}, seed=1),
            table({"pt": pt, "maml": unlucky}, seed=2),
        ]
    )
    summary = cell(arg_table(rows, interval="percentile"), "maml")
    assert summary["arg"] == pytest.approx(0)
    assert summary["n_runs_min"] == 6
    # One start serves all tasks: two lucky draws out of two happen in a quarter of the resamples.
    assert (summary["low"], summary["high"]) == (pytest.approx(-20), pytest.approx(20))
    # A t interval of two seeds: one degree of freedom, standard error 20.
    assert cell(bootstrap_interval(rows), "maml")["low"] == pytest.approx(
        20 * stats.t.ppf(0.025, 1), rel=1e-3
    )
    assert not cell(average_relative_gain(rows[(rows["seed"] == 1) | (rows["task"] != "a")]), "maml")[
        "complete"
    ]


def test_a_single_run_has_no_interval():
    summary = cell(arg_table(table({"pt": {"a": {13: 0.5}}, "maml": {"a": {13: 0.6}}})), "maml")
    assert summary["arg"] == pytest.approx(20)
    assert math.isnan(summary["low"])


@pytest.mark.parametrize(("tasks", "known"), [("ab", False), ("abc", False), ("abcd", True)])
def test_two_or_three_tasks_have_no_interval(tasks, known):
    rng = np.random.default_rng(3)
    rows = table({m: {t: list(rng.uniform(0.2, 0.9, 3)) for t in tasks} for m in ("pt", "maml")})
    ends = cell(bootstrap_interval(rows, resamples=200), "maml")[["low", "high", "abs_low", "abs_high"]]
    assert ends.notna().tolist() == [known] * 4


def test_tasks_without_a_gain_do_not_count_towards_an_interval_of_gains():
    rng = np.random.default_rng(4)
    scores = {m: {t: list(rng.uniform(0.2, 0.9, 3)) for t in "abcd"} for m in ("pt", "maml")}
    scores["pt"]["d"] = [0.0] * 3
    ends = cell(bootstrap_interval(table(scores), resamples=200), "maml")
    assert math.isnan(ends["low"])
    assert ends["abs_low"] < ends["abs_high"]


def test_bad_tables_are_named():
    rows = table({"pt": {"a": [0.5] * 3}, "maml": {"a": [0.6] * 3}})
    with pytest.raises(SoftstartError, match=r"lacks the columns task, test"):
        relative_gains(rows.drop(columns=["task", "test"]))
    with pytest.raises(SoftstartError, match=r"no rows of the baseline 'prompt'.*maml, pt"):
        relative_gains(rows, baseline="prompt")
    with pytest.raises(SoftstartError, match=r"several rows for one run: pt on a, sample 13"):
        relative_gains(pd.concat([rows, rows.head(1)]))
    with pytest.raises(SoftstartError, match=r"column test holds something"):
        relative_gains(rows.assign(test="good"))


def test_area_under_the_dev_curve():
    curves = pd.DataFrame(
        [("pt", 0, 0.0), ("pt", 10, 0.0), ("pt", 20, 1.0), ("maml", 0, 0.5), ("maml", 10, 1.0)],
        columns=["method", "step", "dev"],
    ).assign(task="a", sample=13, lr=0.3)
    areas = adaptation_area(curves).set_index("method")
    assert areas.loc["pt", "area"] == pytest.approx(0.25)
    # Stopped early at 1.0, which it keeps until step 20.
    assert areas.loc["maml", "area"] == pytest.approx((0.75 * 10 + 1.0 * 10) / 20)
    assert adaptation_area(curves, until=10).set_index("method")["area"].to_dict() == {"pt": 0, "maml": 0.75}
    assert adaptation_area(pd.DataFrame()).empty


def test_a_method_with_budgets_of_its_own_is_held_against_the_largest_of_the_baseline():
    pt = [table({"pt": {"a": [score] * 3}}, budget=budget) for budget, score in ((10, 0.2), (60, 0.5))]
    rows = pd.concat([*pt, table({"ft": {"a": [0.6] * 3}}, budget=40)])
    summary = arg_table(rows)
    assert cell(summary, "ft")["arg"] == pytest.approx(20)
    top = largest_budget(summary)
    assert list(top["method"]) == ["ft", "pt"]
    assert set(top["budget"]) == {60}


def test_different_protocols_are_no_comparison():
    rows = pd.concat([table({"pt": {"a": [0.5] * 3}}, shots=16), table({"maml": {"a": [0.6] * 3}}, shots=32)])
    with pytest.raises(SoftstartError, match=r"a was measured under different protocols, shots: 16 \(pt\)"):
        refuse_mixed(rows)
    apart = rows.assign(variant=rows["shots"].map({16: "main", 32: "more"}))
    with pytest.raises(SoftstartError, match="Give each a variant with runs of pt"):
        refuse_mixed(apart)
    refuse_mixed(pd.concat([apart, apart[apart["variant"] == "more"].assign(method="pt")]))
    refuse_mixed(rows.assign(shots=math.nan))


@pytest.mark.skipif(PAPER is None or not (PAPER / "arg.csv").is_file(), reason="shared/paper is not here")
def test_arg_from_the_command_line_equals_the_published(capsys):
    assert cli._main(["arg", str(PAPER / "results.csv"), "--baseline", "pt", "--format", "csv"], False) == 0
    ours = pd.read_csv(io.StringIO(capsys.readouterr().out))
    published = pd.read_csv(PAPER / "arg.csv")
    both = published.merge(ours, on=[c for c in CELL if c != "budget"], suffixes=("_published", ""))
    assert len(both) == len(published)
    for column in ("arg", "median_relgain", "n_tasks"):
        np.testing.assert_allclose(both[column], both[f"{column}_published"], rtol=0, atol=1e-9)
    assert both["p_holm"].dropna().between(0, 1).all()


@pytest.mark.parametrize(
    ("score", "message"),
    [("inf", "inf .* is not finite"), ("nan", "nan .* is no number"), ("93.2", r"93\.2 .* is not a fraction"),
     ("many", "many .* is no number")],
)  # fmt: skip
def test_scores_that_are_no_fractions_are_refused_with_the_file(tmp_path, capsys, score, message):
    good = "method,task,sample,test\npt,emo,13,0.5\nmaml,emo,13,\npt,trec,13,0.4\nmaml,trec,13,0.5\n"
    (tmp_path / "a.csv").write_text(good)
    (tmp_path / "b.csv").write_text(f"method,task,sample,test\npt,NA,13,0.5\nmaml,NA,13,{score}\n")
    assert cli._main(["arg", str(tmp_path / "a.csv")], debug=False) == 0
    capsys.readouterr()
    assert cli._main(["arg", str(tmp_path / "a.csv"), str(tmp_path / "b.csv")], debug=False) == 1
    said = capsys.readouterr().err
    assert re.search(rf"b\.csv: the test score {message}, as are 1 of 2", said)
    assert "(maml, NA, 13)" in said


def test_python_refuses_infinite_scores():
    tests = [("pt", "a", 1, 0.5), ("m", "a", 1, math.inf)]
    rows = pd.DataFrame(tests, columns=["method", "task", "sample", "test"])
    with pytest.raises(SoftstartError, match="1 scores that are not finite"):
        relative_gains(rows)


def test_a_gain_without_a_pole_beside_the_one_with_it():
    """One right answer of a thousand in place of none: ARG jumps, points and the symmetric gain do not."""
    base = {"a": (0.5, 0.5, 0.5), "b": (0.4, 0.4, 0.4)}

    def of(zero):
        rows = table(
            {"pt": {**base, "z": (zero,) * 3}, "maml": {"a": (0.45,) * 3, "b": (0.36,) * 3, "z": (0.9,) * 3}}
        )
        return cell(average_relative_gain(rows), "maml")

    nothing, something = of(0.0), of(0.001)
    assert nothing["arg"] == pytest.approx(-10)
    assert something["arg"] > 29_000
    for column, scale in (("mean_abs_gain", 100), ("mean_symmetric_gain", 200)):
        assert abs(nothing[column] - something[column]) < 0.002 * scale
    assert nothing["mean_symmetric_gain"] == pytest.approx((200 - 2 * 200 * 0.05 / 0.95) / 3)


@given(
    st.floats(-1, 1).filter(lambda x: x == 0 or abs(x) > 1e-6),
    st.floats(-1, 1).filter(lambda x: x == 0 or abs(x) > 1e-6),
)
def test_symmetric_gains_are_bounded_and_change_sign_with_the_methods(a, b):
    (gain,), (back,) = symmetric(np.array([a]), np.array([b])), symmetric(np.array([b]), np.array([a]))
    assert gain == -back
    assert abs(gain) <= 200 + 1e-9
    assert np.sign(gain) == np.sign(a - b)
    if b > 0 and abs(a / b - 1) < 0.01:
        assert gain == pytest.approx(100 * (a / b - 1), rel=0.01, abs=1e-9)


def test_a_tie_is_a_difference_of_less_than_one_test_row():
    scores = {"pt": {"a": (0.5,) * 3, "b": (0.5,) * 3, "c": (0.5,) * 3}}
    scores["maml"] = {"a": (0.504, 0.504, 0.504), "b": (0.505,) * 3, "c": (0.4960, 0.4951, 0.4960)}
    rows = table(scores)
    record = ["wins", "ties", "losses"]
    assert cell(average_relative_gain(rows), "maml")[record].tolist() == [2, 0, 1]
    sized = rows.assign(test_rows=200)
    assert cell(average_relative_gain(sized), "maml")[record].tolist() == [1, 2, 0]
    assert cell(relative_gains(sized), "maml")["tie"] == 0.5


def test_the_t_test_is_the_paired_one_and_holds_its_size_under_a_seed_effect():
    rng = np.random.default_rng(8)
    differences = rng.normal(1, 3, 9)
    runs = pd.DataFrame({"task": range(9), "sample": 1, "seed": 1, "difference_points": differences})
    assert seeds_t_p(runs) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=1e-4)
    assert math.isnan(seeds_t_p(runs[:3]))
    rejected = {"sign flips": [], "t": []}
    for _ in range(200):
        of_seed, of_task = rng.normal(0, 5, (1, 3)), rng.normal(0, 2, (8, 1))
        values = of_seed + of_task + rng.normal(0, 1, (8, 3))
        table = pd.DataFrame(values).rename_axis("task").reset_index().melt("task", var_name="seed")
        runs = table.rename(columns={"value": "difference_points"}).assign(sample=1)
        rejected["t"].append(seeds_t_p(runs) < 0.05)
        rejected["sign flips"].append(sign_flip_p(values.mean(axis=1)) < 0.05)
    # Without a difference between the methods; three standard errors are .046.
    assert np.mean(rejected["t"]) < 0.1
    assert np.mean(rejected["sign flips"]) > 0.3


def test_a_single_run_has_no_p_values_but_no_fault_either():
    rows = table({"pt": {"a": {13: 0.5}}, "maml": {"a": {13: 0.6}}})
    (found,) = compare_methods(rows).to_dict("records")
    assert (found["p"], found["n_tasks"]) == (1.0, 1)
    assert math.isnan(found["p_t"])
