import json
import warnings

import pytest

from helpers.gym_cli import failed, gym
from softstart.errors import SoftstartError
from softstart.gym import Example, Sample, Setting, Task, load_setting, open_gym
from softstart.gym.catalog import crossfit_catalog
from softstart.gym.metrics import METRICS
from softstart.gym.overlap import overlaps
from softstart.gym.settings import shipped_settings

STUDY = ["random", "cls2cls", "nocls2cls", "both2cls", "cls2nocls", "nocls2nocls", "both2nocls", "qa2qa"]
STUDY += ["noqa2qa", "nonli2nli", "nopara2para"]


class Folder:
    """A gym in memory: task name → inputs of its train, dev and test rows."""

    name = "folder"
    version = None

    def __init__(self, **tasks):
        self.rows = tasks

    def tasks(self):
        return tuple(sorted(self.rows))

    def load(self, task):
        train, dev, test = (tuple(Example(text, ("a",)) for text in part) for part in self.rows[task])
        return Task(task, "text2text", "EM", "own", {13: Sample(13, train, dev)}, test)


def test_the_settings_of_the_study_are_found_by_name():
    assert set(STUDY) <= set(shipped_settings("study"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sizes = {
            name: (len(s.source), len(s.target)) for name in STUDY for s in [load_setting(f"study/{name}")]
        }
    assert sizes["random"] == (114, 21)
    assert sizes["nonli2nli"] == (56, 9)
    assert sizes["nopara2para"] == (60, 4)


def test_a_name_is_the_studys_or_the_mini_gyms_or_begins_with_its_collection():
    assert load_setting("mini-cls2cls") == shipped_settings("mini")["mini-cls2cls"]
    assert load_setting("mini/mini-random", open_gym()) == load_setting("mini-random")
    with pytest.warns(UserWarning, match="ethos-disability = ethos-race"):
        assert load_setting("cls2cls", open_gym()) == shipped_settings("study")["cls2cls"]
    with pytest.warns(UserWarning, match="ethos"):
        assert load_setting("random") == load_setting("study/random")
    with pytest.warns(UserWarning, match="ethos"):
        assert load_setting("crossfit/random").dev
    assert load_setting("nopara2para").target == ("glue-mrpc", "glue-qqp", "medical_questions_pairs", "paws")


def test_a_task_on_both_sides_is_kept_as_run_and_warned_about():
    with pytest.warns(
        UserWarning, match=r"'nonli2nli' has the same data .*\(sick, superglue-wsc = glue-wnli\)"
    ):
        setting = load_setting("nonli2nli")
    assert setting.both == ("sick",)
    assert setting.tasks.count("sick") == 1
    with pytest.raises(SoftstartError, match="source and target at once: sick"):
        Setting("mine", setting.source, setting.target)


@pytest.mark.parametrize(
    ("source", "target", "degree"),
    [
        ("sick", "sick", "task"),
        ("squad-no_context", "squad-with_context", "dataset"),
        ("ethos-race", "ethos-gender", "dataset"),
        ("superglue-rte", "glue-rte", "examples"),
        ("glue-qnli", "squad-with_context", "examples"),
        ("mocha", "quoref", "texts"),
        ("quoref", "cosmos_qa", None),
        ("eli5-asks", "eli5-askh", None),
        ("glue-rte", "glue-wnli", None),
        ("mine", "theirs", None),
    ],
)
def test_the_same_data_under_two_names(source, target, degree):
    setting = Setting("x", (source,), (target,), as_run=True)
    assert [overlap.degree for overlap in overlaps(setting)] == [degree] * (degree is not None)


def test_equal_rows_of_your_own_tasks_are_found():
    folder = Folder(
        a=(["x", "y"], ["z"], ["far"]), b=(["p"], ["q"], ["y", "z"]), c=(["far"], ["r"], ["s"])
    )  # fmt: skip
    setting = Setting("mine", ("a",), ("b", "c"))
    assert overlaps(setting) == []
    (overlap,) = overlaps(setting, folder)
    assert (overlap.source, overlap.target, overlap.degree, overlap.why) == (
        "a",
        "b",
        "rows",
        "2 equal inputs in both",
    )


def write(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    return tmp_path / "mine.yaml"


def test_a_setting_of_your_own_by_name_category_metric_and_kind(tmp_path):
    path = write(
        tmp_path,
        "name: mood\nsource:\n  category: classification\n  metric: Classification-F1\n"
        "  exclude: [{category: nli}, 'tweet_eval-*']\n"
        "target: [anli, 'tweet_eval-stance_*']\nexclude: imdb\n",
    )
    setting = load_setting(path)
    catalog = crossfit_catalog()
    assert setting.name == "mood"
    assert setting.target == ("anli", *(name for name in catalog if name.startswith("tweet_eval-stance_")))
    assert set(setting.source) == {
        name
        for name, entry in catalog.items()
        if entry.category.startswith("classification/")
        and entry.metric == "Classification-F1"
        and entry.category != "classification/nli"
        and not name.startswith("tweet_eval-")
        and name != "imdb"
    }
    mixed = load_setting(
        write(
            tmp_path,
            "source: [emo, {kind: text2text, category: [nli, regression], tasks: [sick]}]\ntarget: qasc\n",
        )
    )
    assert mixed == Setting("mine", ("emo", "sick"), ("qasc",))


def test_a_setting_of_your_own_over_another_gym(tmp_path):
    mini = open_gym()
    path = write(
        tmp_path, f"source: {{kind: classification, exclude: {mini.tasks()[0]}}}\ntarget: {mini.tasks()[0]}\n"
    )
    setting = load_setting(path, mini)
    assert setting.target == (mini.tasks()[0],)
    assert all(mini.load(name).kind == "classification" for name in setting.source)


BAD = {
    "typo": ("source: [emoo]\ntarget: [anli]\n", "mine.yaml: source: unknown task 'emoo'. Did you mean emo"),
    "key": (
        "source: {categories: nli}\ntarget: [anli]\n",
        "mine.yaml: source: unknown key 'categories'. Known: ",
    ),
    "category": ("source: {category: nlii}\ntarget: [anli]\n", "no task has category 'nlii'. Did you mean"),
    "metric": ("source: {metric: Acc1}\ntarget: [anli]\n", "no task has metric 'Acc1'"),
    "nothing": (
        "source: {category: nli, metric: EM}\ntarget: emo\n",
        "no task meets category: nli, metric: EM",
    ),
    "both": (
        "source: {category: nli}\ntarget: [anli, sick]\n",
        "at once: anli, sick. Take them out of one side: exclude: [anli, sick]",
    ),
    "no target": ("source: [emo]\n", "setting 'mine': has no target task"),
    "unknown": ("sources: [emo]\ntarget: [anli]\n", "mine.yaml: a setting is a mapping of name,"),
    "yaml": ("source: [emo\n", "mine.yaml: broken YAML"),
}


@pytest.mark.parametrize(("text", "says"), BAD.values(), ids=BAD)
def test_a_bad_setting_of_your_own_is_named(tmp_path, text, says):
    with pytest.raises(SoftstartError) as error:
        load_setting(write(tmp_path, text))
    assert says in str(error.value)


def test_settings_list_and_report_overlaps_on_the_command_line(tmp_path):
    rows = json.loads(gym("settings", "--json").stdout)
    assert {row["setting"] for row in rows} >= {f"study/{name}" for name in STUDY}
    done = gym("settings", "nonli2nli")
    assert done.returncode == 0
    assert "warning: source sick and target sick share task: the same task" in done.stderr
    assert "warning: source superglue-wsc and target glue-wnli share examples" in done.stderr
    write(tmp_path, "source: [emoo]\ntarget: [anli]\n")
    assert "unknown task 'emoo'. Did you mean emo" in failed("settings", "mine.yaml", cwd=tmp_path)


def test_list_filters_and_json():
    rows = json.loads(gym("list", "--json", "--setting", "cls2cls", "--metric", "acc").stdout)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tasks = load_setting("study/cls2cls").tasks
    assert [row["name"] for row in rows] == sorted(t for t in tasks if crossfit_catalog()[t].metric == "ACC")
    done = gym("list", "--category", "nli", "--available", "converted")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["task", "sick", "1"]
    assert len(json.loads(gym("list", "--json").stdout)) == 160
    mini = json.loads(gym("list", "--json", "--available", "mini").stdout)
    assert [row["name"] for row in mini] == list(open_gym().tasks())
    assert "no task has category 'nlii'. Did you mean nli" in failed("list", "--category", "nlii")


def test_show_names_template_labels_example_settings_and_what_the_metric_measures():
    shown = json.loads(gym("show", "anli", "--json").stdout)
    assert shown["input"] == "premise: {premise|lf} [SEP] hypothesis: {hypothesis|lf}"
    assert shown["labels"] == ["entailment", "neutral", "contradiction"]
    assert shown["example"] == "premise: A man sleeps. [SEP] hypothesis: Nobody is awake. → neutral"
    assert "study/cls2cls" in shown["target_in"]
    assert shown["citation"].startswith("Nie et al. 2020")
    assert shown["scored_by"] == METRICS[shown["metric"]].label
    name = open_gym().tasks()[0]
    example = open_gym().load(name).samples[13].train[0]
    assert (
        json.loads(gym("show", name, "--json").stdout)["example"] == f"{example.input} → {example.outputs[0]}"
    )


def test_settings_keep_sources_and_targets_apart():
    setting = Setting("mine", ["emo", "anli"], ["trec"])
    assert setting.tasks == ("emo", "anli", "trec")
    with pytest.raises(SoftstartError, match=r"setting 'mine': has tasks .* at once: emo."):
        Setting("mine", ("emo", "anli"), ("emo",))
    with pytest.raises(SoftstartError, match="names a source task twice: emo"):
        Setting("mine", ("emo", "emo"), ("anli",))
    with pytest.raises(SoftstartError, match="has no target task"):
        Setting("mine", ("emo",), ())


def test_all_unknown_tasks_of_a_setting_in_one_error():
    with pytest.raises(SoftstartError) as error:
        Setting("mine", ("emo", "emoo"), ("zzz",)).check_against(Folder(emo=((), (), ())))
    assert "does not have: emoo, zzz" in str(error.value)
    assert "emoo: Did you mean emo?" in str(error.value)


def test_shipped_settings_name_tasks_of_the_mini_gym():
    gym = open_gym()
    for setting in shipped_settings().values():
        setting.check_against(gym)
    assert load_setting("mini-cls2cls").name == "mini-cls2cls"
    with pytest.raises(SoftstartError, match=r"unknown setting 'cls2cl'. Did you mean .*cls2cls.*Known: "):
        load_setting("cls2cl")
