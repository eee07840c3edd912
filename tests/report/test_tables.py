"""Numbers and tables as readers see them."""

import numpy as np

from cxgrad_jax.report import tables


def test_numbers():
    assert tables.percent(0.518) == "51.80" and tables.percent(None) == "–"
    assert tables.percent_with(-0.0123, 0.004, "+.2f") == "-1.23 ± 0.40"
    assert tables.percent_with(0.518, None) == "51.80"
    assert tables.percent_mean(np.array([0.25, 0.75])) == "50.00 ± 34.65"
    assert [tables.p_value(p) for p in (None, 1e-5, 0.04)] == ["–", "< 0.0001", "0.0400"]


def test_markdown():
    assert tables.markdown_table([["a", "b"], ["c", "d"]]) == "| a | b |\n| :-- | --: |\n| c | d |\n"


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
