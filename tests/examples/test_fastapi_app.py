"""The web service of examples/ on a real PostgreSQL: two workers, one store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def workers(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[TestClient, TestClient]]:
    """Two openings of the service, each with a saver and connections of its own."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("CKPT_STORE", postgres_url)
    from fastapi_app import app

    with ExitStack() as stack:
        a, b = (stack.enter_context(TestClient(app)) for _ in range(2))
        yield a, b


def post(client: TestClient, path: str, **body: Any) -> dict[str, Any]:
    answered = client.post(path, json=body)
    assert answered.is_success, answered.text
    found: dict[str, Any] = answered.json()
    return found


def test_a_thread_goes_from_worker_to_worker(workers: tuple[TestClient, TestClient]) -> None:
    a, b = workers
    begun = post(a, "/threads", text="Hello, my order A-1001 arrived broken.")
    thread = f"/threads/{begun['thread']}"
    assert begun["answer"] == "Order A-1001 was delivered on 6 March. How can I help?"

    asked = post(b, f"{thread}/messages", text="I want my money back, please.")
    assert asked["waits_for"] == {"approve": "refund", "order": "A-1001", "amount": 101.5}
    head, *earlier = a.get(f"{thread}/history").json()
    assert (head["status"], head["next"]) == ("interrupted", ["approve"])
    assert [each["step"] for each in earlier] == list(range(head["step"] - 1, -2, -1))

    copy = post(b, f"{thread}/forks")
    assert (copy["status"], copy["next"]) == ("interrupted", ["approve"])
    assert "may not refund" in post(a, f"/threads/{copy['thread']}/approval", answer="no")["answer"]
    assert "R-881" in post(a, f"{thread}/approval", answer="yes")["answer"]
    again = post(b, f"{thread}/forks", steps_back=3)
    assert again["next"] == ["approve"]
    assert again["step"] == head["step"]
    assert len(b.get(f"{thread}/history", params={"limit": 2}).json()) == 2


def test_what_is_wrong_has_a_status_of_its_own(workers: tuple[TestClient, TestClient]) -> None:
    a, _ = workers
    for method, path, body in [
        ("POST", "messages", {"text": "hello"}),
        ("POST", "approval", {"answer": "yes"}),
        ("POST", "forks", {}),
        ("GET", "history", None),
    ]:
        refused = a.request(method, f"/threads/nobody/{path}", json=body)
        assert refused.status_code == 404, refused.text
        assert "nobody" in refused.json()["message"]
    thread = post(a, "/threads", text="Where is A-7?")["thread"]
    assert a.post(f"/threads/{thread}/forks", json={"steps_back": 99}).status_code == 404
    assert a.post(f"/threads/{thread}/approval", json={"answer": "maybe"}).status_code == 422
