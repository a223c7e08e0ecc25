"""What a third storage needs to prove itself: subclass `StorageContract` in its tests. Needs pytest."""

import pytest

pytest.register_assert_rewrite("ckpt.testing.contract", "ckpt.testing.fixtures", "ckpt.testing.sharing")

from ckpt.testing.contract import StorageContract  # noqa: E402

__all__ = ["StorageContract"]
