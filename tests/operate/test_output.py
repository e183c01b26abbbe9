"""What operator commands print."""

import io

from nsm.operate.output import JSON, RED, WIDE, Cell, Output


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_columns_that_nothing_is_in_are_left_out():
    out = io.StringIO()
    Output.to(out).table(["WIRE", "NODE", "STATE"], [["a/nsm-1", "", "UP"], ["bob/nsm-10", "", "DOWN"]])
    assert out.getvalue() == "WIRE        STATE\na/nsm-1     UP\nbob/nsm-10  DOWN\n"


def test_a_table_without_rows_has_its_heads():
    out = io.StringIO()
    Output.to(out).table(["WIRE", "STATE"], [])
    assert out.getvalue() == "WIRE  STATE\n"


def test_colours_are_for_terminals_only():
    plain, terminal, no_color = io.StringIO(), Terminal(), Terminal()
    for out, environment in ((plain, {}), (terminal, {}), (no_color, {"NO_COLOR": "1"})):
        Output.to(out, environment=environment).parts(["state ", Cell("DOWN", RED)])
    assert plain.getvalue() == no_color.getvalue() == "state DOWN\n"
    assert terminal.getvalue() == "state \033[31mDOWN\033[0m\n"


def test_a_colour_does_not_change_the_width_of_a_column():
    terminal = Terminal()
    Output.to(terminal, environment={}).table(["A", "B"], [[Cell("x", RED), "1"], ["longer", "2"]])
    assert "\033[31mx     \033[0m  1" in terminal.getvalue()


def test_names_from_workloads_cannot_control_the_terminal():
    out = Terminal()
    output = Output.to(out, environment={})
    output.table(["WIRE"], [["\033[2Jevil"]])
    output.line("\033]0;title\007")
    output.parts(["a\nb"])
    assert "\033" not in out.getvalue()
    for shown in ("\\x1b[2Jevil", "\\x1b]0;title\\x07", "a\\nb"):
        assert shown in out.getvalue()


def test_json_is_one_line_for_each_value():
    out = io.StringIO()
    output = Output.to(out, JSON)
    output.json({"wires": []})
    assert out.getvalue() == '{"wires": []}\n'
    assert output.is_json
    assert not Output.to(out, WIDE).is_json
