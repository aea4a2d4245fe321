"""The tutorial's complete example without `async` and `await`, from `esource.sync`."""

from support.without_async import without_async


def test_the_complete_example_prints_the_same_without_async(run_example, run_code, examples):
    program = without_async((examples / "tutorial_12_sqlite.py").read_text(encoding="utf-8"))
    program = program.replace("result_of(", "(")
    assert "async " not in program
    assert "await " not in program
    assert "from esource.sync import" in program
    assert run_code(program) == run_example("tutorial_12_sqlite.py")
