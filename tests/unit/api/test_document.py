"""Documents behave as frozen dataclasses with keywords only."""

import pytest

from polywan.api.document import Document


class Leg(Document):
    """A part.

    Its module must not delay annotations.
    """

    length: int
    foot: str | None = None


def test_a_document_equals_another_that_holds_the_same() -> None:
    assert Leg(length=1) == Leg(length=1, foot=None)
    assert Leg(length=1) != Leg(length=2)
    assert Leg(length=1) != 1
    assert len({Leg(length=1), Leg(length=1)}) == 1


def test_a_document_shows_what_it_holds() -> None:
    assert repr(Leg(length=1, foot="big")) == "Leg(length=1, foot='big')"


def test_a_document_cannot_be_changed() -> None:
    leg = Leg(length=1)
    with pytest.raises(AttributeError, match=r"Leg\.length cannot be changed"):
        leg.length = 2  # type: ignore[misc] # what type checkers refuse too
    with pytest.raises(AttributeError, match=r"Leg\.length cannot be removed"):
        del leg.length
    assert leg.length == 1
    assert not hasattr(leg, "__dict__")


def test_a_document_needs_all_fields_without_a_default_and_takes_no_others() -> None:
    with pytest.raises(TypeError, match="Leg: length is missing"):
        Leg()  # type: ignore[call-arg] # what type checkers refuse too
    with pytest.raises(TypeError, match="Leg: there is no toes"):
        Leg(length=1, toes=5)  # type: ignore[call-arg] # as above
