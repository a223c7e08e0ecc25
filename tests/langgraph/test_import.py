"""What is said where LangGraph is not installed."""

from __future__ import annotations

from script_kit import output_of, python


def test_importing_without_the_extra_says_what_to_install() -> None:
    said = output_of(
        python(
            """
            import sys

            sys.modules["langgraph"] = sys.modules["langchain_core"] = None
            import ckpt
            try:
                import ckpt.langgraph
            except ModuleNotFoundError as error:
                print(error.name.partition(".")[0], error)
            """
        )
    )
    assert said.startswith(("langgraph ", "langchain_core "))
    assert "pip install 'ckpt-store[langgraph]'" in said
