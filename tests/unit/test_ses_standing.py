"""How the answers of GetAccount and GetSendQuota are read: for the daemon and for the verbs by the same code."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError

from sesrelay.aws.account import fetch
from sesrelay.aws.clients import AwsError, Clients
from sesrelay.aws.standing import Standing, standing

FIGURES = {"MaxSendRate": 14.0, "Max24HourSend": 50_000.0, "SentLast24Hours": 7.0}
OF_THE_SANDBOX = {"MaxSendRate": 1.0, "Max24HourSend": 200.0, "SentLast24Hours": 7.0}


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "GetAccount")


def clients(v2: dict[str, Any] | str, v1: dict[str, Any] | str = "AccessDenied") -> Any:
    """Clients whose answers are these, or refusals by these codes."""

    def said(answer: dict[str, Any] | str) -> Any:
        if isinstance(answer, str):
            raise refusal(answer)
        return answer

    made = {
        "sesv2": SimpleNamespace(get_account=lambda: said(v2)),
        "ses": SimpleNamespace(get_send_quota=lambda: said(v1), get_send_statistics=dict),
    }
    return type("Paper", (dict,), {"region": "us-east-1"})(made)


def stands(made: Any) -> Standing:
    return standing(cast(Clients, made), 0.0)


@pytest.mark.parametrize(
    ("answer", "sandbox", "sending"),
    [
        ({"ProductionAccessEnabled": True, "SendingEnabled": True}, False, True),
        ({"ProductionAccessEnabled": False, "SendingEnabled": False}, True, False),
        ({}, None, None),
        ({"SendQuota": OF_THE_SANDBOX}, True, None),
        ({"SendQuota": OF_THE_SANDBOX, "ProductionAccessEnabled": True}, False, None),
        ({"ProductionAccessEnabled": None, "SendingEnabled": None}, None, None),
    ],
)
def test_what_is_not_said_is_not_known(answer: dict[str, Any], sandbox: bool | None, sending: bool | None) -> None:
    made = clients({"SendQuota": FIGURES, **answer})
    found = stands(made)
    assert (found.sandbox, found.sending_enabled, found.enforcement, found.suppression) == (sandbox, sending, None, None)
    assert fetch(made["sesv2"], made["ses"]).sandbox is sandbox


NO_FIGURE = {"SendQuota": {**FIGURES, "SentLast24Hours": float("nan")}}


@pytest.mark.parametrize("v2", ["AccessDeniedException", "TooManyRequestsException", {"ProductionAccessEnabled": True}, NO_FIGURE])
def test_v1_has_the_figures_where_v2_refuses_or_lacks_them(v2: dict[str, Any] | str) -> None:
    made = clients(v2, {**FIGURES, "Max24HourSend": -1.0})
    found, figures = stands(made), fetch(made["sesv2"], made["ses"])
    assert (found.max_send_rate, found.max_24h_send, found.sent_last_24h, found.sandbox) == (14.0, None, 7.0, None)
    assert (figures.max_send_rate, figures.max_24h_send, figures.sent_last_24h, figures.sandbox) == (14.0, -1.0, 7.0, None)
    assert (found.sending_enabled, found.suppression) == (None, None)


def test_where_neither_answers_that_is_said() -> None:
    with pytest.raises(AwsError, match="cannot read the SES account: TooManyRequestsException") as raised:
        stands(clients("AccessDeniedException", "TooManyRequestsException"))
    assert raised.value.temporary


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", FIGURES)
def test_what_is_no_figure_is_no_answer(name: str, bad: float) -> None:
    quota = {**FIGURES, name: bad}
    with pytest.raises(AwsError, match="the answer is not from AWS"):
        stands(clients({"SendQuota": quota}, quota))
