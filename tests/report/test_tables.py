"""Numbers and tables as readers see them."""

import numpy as np
import pytest

from cxgrad_jax.report import tables
from cxgrad_jax.training.config import base_config, learner_config, model_config


def test_numbers():
    assert tables.percent(0.518) == "51.80" and tables.percent(None) == "–"
    assert tables.percent_with(-0.0123, 0.004, "+.2f") == "-1.23 ± 0.40"
    assert tables.percent_with(0.518, None) == "51.80"
    assert tables.percent_mean(np.array([0.25, 0.75])) == "50.00 ± 34.65"
    assert [tables.p_value(p) for p in (None, 1e-5, 0.04)] == ["–", "< 0.0001", "0.0400"]


def test_markdown():
    assert tables.markdown_table([["a", "b"], ["c", "d"]]) == "| a | b |\n| :-- | --: |\n| c | d |\n"


def test_names_of_any_characters_stay_in_their_cells():
    assert tables.markdown_table([["a|b", "c"]]).startswith("| a\\|b | c |\n")
    line = tables.latex_table([[r"a&b_c%d$e#f{g}h~i^j\k<l>m", "± –"]], []).splitlines()[2]
    expected = r"a\&b\_c\%d\$e\#f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k$<$l$>$m & $\pm$ -- \\"
    assert line == expected


def test_the_table_of_a_paper_has_the_best_of_each_column_in_bold():
    rows = [
        ("MAML_1", [(0.3321, 0.011), None]),
        ("A & B", [(0.3319, 0.01), (0.5, 0.01)]),
        ("C", [(0.2, 0.1), (0.4, 0.1)]),
    ]
    latex = tables.paper_table(["method", "1-shot", "5-shot"], rows, ["50 %\nof it"])
    assert latex.splitlines() == [
        "% 50 % of it",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"method & 1-shot & 5-shot \\",
        r"\midrule",
        r"MAML\_1 & \textbf{33.2 $\pm$ 1.1} & -- \\",
        r"A \& B & \textbf{33.2 $\pm$ 1.0} & \textbf{50.0 $\pm$ 1.0} \\",
        r"C & 20.0 $\pm$ 10.0 & 40.0 $\pm$ 10.0 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def config_of(name, norm="batch", **changes):
    config = base_config()
    config.learner, config.model = learner_config(name, **changes), model_config("conv4", norm=norm)
    return config


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (config_of("maml"), tables.TRANSDUCTIVE),
        (config_of("maml", query_statistics="support"), tables.INDUCTIVE),
        (config_of("maml", norm="group"), tables.INDUCTIVE),
        (config_of("proto_net", query_statistics="running"), tables.INDUCTIVE),
        (config_of("proto_net", joint_normalisation=True), tables.TRANSDUCTIVE),
        (config_of("metal"), tables.TRANSDUCTIVE),
        (config_of("metal", norm="group"), tables.TRANSDUCTIVE),  # its inner loop sees the query images
        (config_of("metal", query_statistics="support"), tables.INDUCTIVE),
    ],
)
def test_what_a_prediction_sees_chooses_the_table(config, kind):
    assert tables.by_kind({"it": config}) == {kind: ["it"]}
    assert kind.lower().startswith("transductive" if tables.is_transductive(config) else "inductive")


def test_the_kind_of_the_first_comes_first():
    support, query = config_of("maml", query_statistics="support"), config_of("maml")
    found = tables.by_kind({"a": support, "b": query, "c": support})
    assert list(found.items()) == [(tables.INDUCTIVE, ["a", "c"]), (tables.TRANSDUCTIVE, ["b"])]
