"""The scenarios of the example pages of dcb.events, with the programs in `examples/decisions`: on views alone, and on each
database."""

import asyncio
import sys
from datetime import datetime, timedelta, timezone
from functools import partial

import pytest
from support.documents import ROOT

from esource import AggregateRepository, Query, QueryItem
from esource.testing import given_events, same_event

sys.path.insert(0, str(ROOT / "examples" / "decisions"))

import course_subscriptions as courses
import event_sourced_aggregate as aggregate
import invoice_number as invoices
import opt_in_token as tokens
import product_price as prices
import record_duplication as submissions
import unique_username as usernames
from course_subscriptions import Course, CourseCapacityChanged, CourseDefined, Student
from invoice_number import InvoiceCreated, Invoices
from opt_in_token import SignUp, SignUpConfirmed, SignUpInitiated
from product_price import Price, ProductDefined, ProductPriceChanged, ProductsOrdered
from record_duplication import OrderSubmitted, Submission
from unique_username import AccountClosed, AccountRegistered, Username, UsernameChanged

EXAMPLES = [courses, usernames, invoices, tokens, submissions, prices, aggregate]
NOW = datetime.now(timezone.utc)


def ago(event_class, days=0, minutes=0, **fields):
    return event_class(**fields, occurred_at=NOW - timedelta(days=days, minutes=minutes))


def subscribed(student_id, course_id):
    return courses.StudentSubscribedToCourse(student_id=student_id, course_id=course_id)


def defined(course_id, capacity):
    return CourseDefined(course_id=course_id, capacity=capacity)


def ordered(**shown):
    items = [prices.Item(product_id=name, price=price) for name, price in shown.items()]
    return ProductsOrdered(items=items, product_ids=list(shown))


def ordering(**shown):
    return (partial(prices.order, shown), *(Price(name, NOW) for name in shown))


JOHN = {"email_address": "john.doe@example.com", "name": "John Doe"}
P1 = ago(ProductDefined, minutes=20, product_id="p1", price=123)
P1_NEW = ago(ProductPriceChanged, minutes=9, product_id="p1", new_price=134)

SCENARIOS = {
    "a course of a new id": ([], (partial(courses.define, capacity=15), Course("c1")), defined("c1", 15)),
    "a course of an id that exists": (
        [defined("c1", 10)],
        (partial(courses.define, capacity=15), Course("c1")),
        'Course with id "c1" already exists',
    ),
    "another capacity for no course": (
        [],
        (partial(courses.change_capacity, new_capacity=15), Course("c0")),
        'Course "c0" does not exist',
    ),
    "the same capacity": (
        [defined("c1", 12)],
        (partial(courses.change_capacity, new_capacity=12), Course("c1")),
        "New capacity 12 is the same as the current capacity",
    ),
    "another capacity": (
        [defined("c1", 12)],
        (partial(courses.change_capacity, new_capacity=15), Course("c1")),
        CourseCapacityChanged(course_id="c1", new_capacity=15),
    ),
    "a subscription to no course": (
        [],
        (courses.subscribe, Course("c0"), Student("s1")),
        'Course "c0" does not exist',
    ),
    "a subscription to a full course": (
        [defined("c1", 3), *(subscribed(f"s{n}", "c1") for n in (1, 2, 3))],
        (courses.subscribe, Course("c1"), Student("s4")),
        'Course "c1" is already fully booked',
    ),
    "a second subscription": (
        [defined("c1", 10), subscribed("s1", "c1")],
        (courses.subscribe, Course("c1"), Student("s1")),
        "Student already subscribed to this course",
    ),
    "a sixth course": (
        [defined("c6", 10), *(subscribed("s1", f"c{n}") for n in range(1, 6))],
        (courses.subscribe, Course("c6"), Student("s1")),
        "Student already subscribed to 5 courses",
    ),
    "a subscription": (
        [defined("c1", 10)],
        (courses.subscribe, Course("c1"), Student("s1")),
        subscribed("s1", "c1"),
    ),
    "a name that is claimed": (
        [AccountRegistered(username="u1")],
        (usernames.register, Username("u1")),
        'Username "u1" is claimed',
    ),
    "a new name": ([], (usernames.register, Username("u1")), AccountRegistered(username="u1")),
    "a name that another was changed to": (
        [UsernameChanged(old_username="u1", new_username="u1changed")],
        (usernames.register, Username("u1changed")),
        'Username "u1changed" is claimed',
    ),
    "the name of a closed account, too early": (
        [ago(AccountRegistered, days=4, username="u1"), ago(AccountClosed, days=3, username="u1")],
        (usernames.register, Username("u1", NOW)),
        'Username "u1" is claimed',
    ),
    "a name that was changed, too early": (
        [
            ago(AccountRegistered, days=4, username="u1"),
            ago(UsernameChanged, days=3, old_username="u1", new_username="u1changed"),
        ],
        (usernames.register, Username("u1", NOW)),
        'Username "u1" is claimed',
    ),
    "the name of a closed account": (
        [ago(AccountRegistered, days=4, username="u1"), ago(AccountClosed, days=4, username="u1")],
        (usernames.register, Username("u1", NOW)),
        AccountRegistered(username="u1"),
    ),
    "a name that was changed": (
        [
            ago(AccountRegistered, days=4, username="u1"),
            ago(UsernameChanged, days=4, old_username="u1", new_username="u1changed"),
        ],
        (usernames.register, Username("u1", NOW)),
        AccountRegistered(username="u1"),
    ),
    "the first invoice": (
        [],
        (partial(invoices.create, data={"foo": "bar"}), Invoices()),
        InvoiceCreated(invoice_number=1, invoice_data={"foo": "bar"}),
    ),
    "the second invoice": (
        [InvoiceCreated(invoice_number=1, invoice_data={"foo": "bar"})],
        (partial(invoices.create, data={"bar": "baz"}), Invoices()),
        InvoiceCreated(invoice_number=2, invoice_data={"bar": "baz"}),
    ),
    "a password that there is not": (
        [],
        (tokens.confirm, SignUp("john.doe@example.com", "000000")),
        "No pending sign-up for this OTP / email address",
    ),
    "the password of another address": (
        [SignUpInitiated(otp="111111", **JOHN)],
        (tokens.confirm, SignUp("jane.doe@example.com", "111111")),
        "No pending sign-up for this OTP / email address",
    ),
    "a password that was used": (
        [SignUpInitiated(otp="222222", **JOHN), SignUpConfirmed(otp="222222", **JOHN)],
        (tokens.confirm, SignUp("john.doe@example.com", "222222")),
        "OTP was already used",
    ),
    "a password that has expired": (
        [ago(SignUpInitiated, minutes=61, otp="333333", **JOHN)],
        (tokens.confirm, SignUp("john.doe@example.com", "333333", NOW)),
        "OTP expired",
    ),
    "a password": (
        [SignUpInitiated(otp="444444", **JOHN)],
        (tokens.confirm, SignUp("john.doe@example.com", "444444")),
        SignUpConfirmed(otp="444444", **JOHN),
    ),
    "a token that was used": (
        [OrderSubmitted(order_id="o12345", idempotency_token="11111")],
        (partial(submissions.submit, order_id="o54321"), Submission("11111")),
        "Re-submission",
    ),
    "a new token": (
        [],
        (partial(submissions.submit, order_id="o54321"), Submission("22222")),
        OrderSubmitted(order_id="o54321", idempotency_token="22222"),
    ),
    "a price that never was": ([P1], ordering(p1=100), 'invalid price for product "p1"'),
    "a price that was changed long ago": (
        [P1, ago(ProductPriceChanged, minutes=20, product_id="p1", new_price=134)],
        ordering(p1=123),
        'invalid price for product "p1"',
    ),
    "the price": ([P1], ordering(p1=123), ordered(p1=123)),
    "a price that was changed just now": ([P1, P1_NEW], ordering(p1=123), ordered(p1=123)),
    "the prices of several products": (
        [P1, P1_NEW, ago(ProductDefined, minutes=8, product_id="p2", price=321)],
        ordering(p1=123, p2=321),
        ordered(p1=123, p2=321),
    ),
}

each = pytest.mark.parametrize(("events", "decide", "outcome"), SCENARIOS.values(), ids=SCENARIOS)


@each
def test_a_scenario_on_views_alone(events, decide, outcome):
    decision, *views = decide
    decided = given_events(*events).when(decision, *views)
    if isinstance(outcome, str):
        decided.then_raises(Exception, match=f"^{outcome}$")
    else:
        decided.then(outcome)


@each
async def test_a_scenario_on_a_database(store, events, decide, outcome):
    for event in events:
        await store.append([event])
    if isinstance(outcome, str):
        with pytest.raises(Exception, match=f"^{outcome}$"):
            await store.decide(*decide)
        assert await store.get_global_position() == len(events)
    else:
        result = await store.decide(*decide)
        stored = [stored async for stored in store.read_all()][-1]
        assert same_event(stored.event, outcome)
        assert stored.global_position == result.global_position


async def test_a_course_as_an_aggregate(store):
    repository = AggregateRepository(store, aggregate.CourseAggregate)
    execute, i = repository.execute, aggregate.stream_of("c1")
    await repository.execute_or_create(i, aggregate.CourseAggregate.define, "c1", 10)
    await execute(i, aggregate.CourseAggregate.change_capacity, 15)
    with pytest.raises(aggregate.RefusedError, match='^Course "c1" already has a capacity of 15$'):
        await execute(i, aggregate.CourseAggregate.change_capacity, 15)
    await execute(i, aggregate.CourseAggregate.subscribe, "s1")
    with pytest.raises(aggregate.RefusedError, match="already has 1 active subscriptions"):
        await execute(i, aggregate.CourseAggregate.change_capacity, 0)
    await execute(i, aggregate.CourseAggregate.change_capacity, 1)
    with pytest.raises(aggregate.RefusedError, match="already fully booked"):
        await execute(i, aggregate.CourseAggregate.subscribe, "s2")
    found = await store.read_query(Query(QueryItem(tags=["course:c1"])))
    assert [e.event for e in found.events] == (await store.get_events(i, "CourseAggregate")).events


PRINTED = {
    courses: "3 of 10 students have a place",
    usernames: "1 of 5 got the name ada\nada is free at once: False",
    invoices: "numbers: [1, 2, 3, 4, 5, 6, 7, 8]",
    tokens: "attempt 1: confirmed\nattempt 2: OTP was already used",
    submissions: "['Re-submission', 'Re-submission', 'ordered']",
    prices: "{'p1': 123, 'p2': 321}: ordered\n{'p1': 134}: ordered\n{'p1': 100}: invalid price for product \"p1\"",
    aggregate: "['CourseDefined', 'CourseCapacityChanged', 'StudentSubscribedToCourse']",
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda module: module.__name__)
def test_an_example_is_a_program(example, shared_database_url, capsys):
    asyncio.run(example.run(shared_database_url))
    assert capsys.readouterr().out.strip() == PRINTED[example]
