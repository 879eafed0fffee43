"""What operators said: taken in once each, never changed, taken back only by a new answer.

An answer that withdraws another only takes it back, whatever it says itself: the question is open
again, and who knows better answers it anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, exists, func, insert, select, update

from edge_sdk.answers import Answer
from edge_sdk.clock import Clock
from edge_sdk.documents import canonical_json, parse_json
from edge_sdk.errors import FormatError
from mentoring.catalogue import WHOLE_PICTURE
from mentoring.database import Database, moment_of, us_of
from mentoring.problems import NotAcceptable, RefusalError
from mentoring.schema import answers, items, questions

__all__ = ["MAX_ANSWERS", "Answers", "Outcome", "answer_of", "counts_of"]

MAX_ANSWERS = 500
"""In one call; a page that was away for a shift sends several calls."""
_MOST = 2**63 - 1


@dataclass(frozen=True)
class Outcome:
    """What became of one answer of a list."""

    id: str | None
    status: int
    """201 taken in, 200 known already, 422 refused."""
    error: str | None = None


class Answers:
    """Takes answers in."""

    def __init__(self, database: Database, *, clock: Clock, lease_s: int) -> None:
        self._database = database
        self._clock = clock
        self._lease_s = lease_s

    def record(self, given: Sequence[Any]) -> list[Outcome]:
        """Take in a list of answers, each by itself, in order.

        Once this returns, a power cut loses none that was taken in.

        Args:
            given: Decoded JSON, each meant to be an answer of ``answer/1``.

        Raises:
            NotAcceptable: There are more than 500.
        """
        if len(given) > MAX_ANSWERS:
            raise NotAcceptable(f"{len(given)} answers were sent at once; send at most {MAX_ANSWERS}")
        done: list[Outcome] = []
        with self._database.change() as connection:
            for number, entry in enumerate(given):
                try:
                    answer = _read(entry, number)
                    new = self._take(connection, answer)
                    done.append(Outcome(str(answer.id), 201 if new else 200))
                except RefusalError as problem:
                    told = entry.get("id") if isinstance(entry, dict) else None
                    done.append(
                        Outcome(told if isinstance(told, str) else None, problem.status, str(problem))
                    )
        return done

    def _take(self, connection: Connection, answer: Answer) -> bool:
        item = connection.execute(select(items).where(items.c.sha256 == answer.item)).first()
        if item is None:
            raise NotAcceptable(f"answer {answer.id} is about item {answer.item}, which is not here")
        place = WHOLE_PICTURE if answer.question is None else answer.question
        values = _values(answer, item.number, place)
        known = connection.execute(select(answers).where(answers.c.id == values["id"])).first()
        if known is not None:
            if any(known._mapping[name] != value for name, value in values.items()):
                raise NotAcceptable(
                    f"answer {answer.id} is known and says something else; an answer is never changed: "
                    "withdraw it by a new one"
                )
            return False
        _check(connection, answer, item, place)
        now_us = us_of(self._clock.now())
        connection.execute(insert(answers).values(**values, received_at_us=now_us))
        reopened = _settle(connection, item.number)
        if reopened and answer.withdraws is not None:
            # who takes back answers anew: nobody else is asked meanwhile
            connection.execute(
                update(items)
                .where(items.c.number == item.number)
                .values(holder=answer.device or None, leased_until_us=now_us + self._lease_s * 1_000_000)
            )
        return True

    def counts(self) -> dict[str, int]:
        """Of the answers that stand how many say what, and how many were withdrawn."""
        with self._database.look() as connection:
            return counts_of(connection, mark=None)


def answer_of(row: Row[Any], digest: str) -> Answer:
    """An answer from its row; ``digest`` is its item's."""
    return Answer.model_validate(
        {
            "id": row.id,
            "item": digest,
            "question": None if row.place == WHOLE_PICTURE else row.place,
            "answer": row.answer,
            "class": row.class_name,
            "operator": row.operator,
            "device": row.device,
            "answered_at": moment_of(row.answered_at_us),
            "after_ms": row.after_ms,
            "page": row.page,
            "withdraws": row.withdraws,
        }
    )


def counts_of(connection: Connection, *, mark: int | None) -> dict[str, int]:
    """Count the answers up to a mark, or all: ``confirm``, ``infirm``, ``unsure``, ``withdrawn``."""
    later = answers.alias()
    covers = and_(later.c.withdraws == answers.c.id, later.c.number <= (_MOST if mark is None else mark))
    withdrawn = exists().where(covers)
    query = select(answers.c.answer, withdrawn, func.count()).where(answers.c.withdraws.is_(None))
    if mark is not None:
        query = query.where(answers.c.number <= mark)
    found = dict.fromkeys(("confirm", "infirm", "unsure", "withdrawn"), 0)
    for says, gone, count in connection.execute(query.group_by(answers.c.answer, withdrawn)):
        found["withdrawn" if gone else says] += count
    return found


def _read(entry: Any, number: int) -> Answer:
    try:
        answer = parse_json(canonical_json(entry), Answer, name=f"answer {number} of the list")
    except (FormatError, UnicodeEncodeError) as error:
        raise NotAcceptable(str(error)) from error
    except RecursionError as error:
        raise NotAcceptable(f"answer {number} of the list is nested too deeply to be one") from error
    if answer.after_ms > _MOST or (answer.question or 0) > 2**31 - 1:
        raise NotAcceptable(
            f"answer {number} of the list holds a number that no page writes; give smaller ones"
        )
    return answer


def _values(answer: Answer, item: int, place: int) -> dict[str, Any]:
    return {
        "id": str(answer.id),
        "item": item,
        "place": place,
        "answer": answer.answer,
        "class_name": answer.class_name,
        "operator": answer.operator,
        "device": answer.device,
        "answered_at_us": us_of(answer.answered_at),
        "after_ms": answer.after_ms,
        "page": answer.page,
        "withdraws": None if answer.withdraws is None else str(answer.withdraws),
    }


def _check(connection: Connection, answer: Answer, item: Row[Any], place: int) -> None:
    places = set(connection.scalars(select(questions.c.place).where(questions.c.item == item.number)))
    if place not in places:
        count = len(places) - 1
        raise NotAcceptable(
            f"answer {answer.id} is about question {place} of item {answer.item}, which has {count}; "
            + (f"give 0 to {count - 1}, or " if count else "give ")
            + "null for the whole picture"
        )
    if answer.withdraws is None:
        return
    before = connection.execute(select(answers).where(answers.c.id == str(answer.withdraws))).first()
    if before is None:
        raise NotAcceptable(
            f"answer {answer.id} withdraws {answer.withdraws}, which is not here; send that one first"
        )
    if (before.item, before.place) != (item.number, place):
        raise NotAcceptable(
            f"answer {answer.id} withdraws {answer.withdraws}, which is about another question; "
            "name the same item and question"
        )


def _settle(connection: Connection, item: int) -> bool:
    """Mark which questions of an item are answered now.

    Returns:
        Whether one is open that was not.
    """
    rows = list(connection.execute(select(answers).where(answers.c.item == item).order_by(answers.c.number)))
    standing = list(_standing(rows))
    answered = {row.place for row in standing}
    nothing_there = any(row.place == WHOLE_PICTURE and row.answer == "infirm" for row in standing)
    reopened, still_open = False, 0
    for question in connection.execute(select(questions).where(questions.c.item == item)).all():
        now = int(question.place in answered or nothing_there)
        reopened |= bool(question.answered and not now)
        still_open += bool(question.asked and not now)
        if now != question.answered:
            this = and_(questions.c.item == item, questions.c.place == question.place)
            connection.execute(update(questions).where(this).values(answered=now))
    connection.execute(update(items).where(items.c.number == item).values(open=still_open))
    return reopened


def _standing(rows: Sequence[Row[Any]]) -> Iterator[Row[Any]]:
    """Those that say something and were not taken back."""
    withdrawn = {row.withdraws for row in rows if row.withdraws is not None}
    for row in rows:
        if row.id not in withdrawn and row.withdraws is None:
            yield row
