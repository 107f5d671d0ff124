"""The IAM user of a relay: its policy and its access keys.

Invariant: a secret key is in a value only; no error and no `repr` has it.

Source: IAM API reference; IAM quotas (two access keys a user, inline policies of 2,048 characters, managed ones of 6,144).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from sesrelay.aws.clients import AwsError, Clients, told
from sesrelay.aws.policy import compact
from sesrelay.aws.region import partition
from sesrelay.aws.session import Source

POLICY = "sesrelay"
INLINE_MAX, MANAGED_MAX = 2048, 6144  # characters without white space
KEYS_MAX = 2
VERSIONS_MAX = 5
SETTLING = {"InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException", "AccessDenied", "AccessDeniedException"}
"""What is said of a key or a policy that is too new: IAM takes some seconds to tell everybody."""


@dataclass(frozen=True, slots=True)
class Key:
    """One access key as IAM lists it. Units: `created` Unix seconds."""

    id: str
    active: bool
    created: float


@dataclass(frozen=True, slots=True)
class NewKey:
    id: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class User:
    name: str
    account_id: str


def find_user(clients: Clients, name: str) -> User | None:
    """Return the user, or None where the account has none of this name. Raises: AwsError"""
    try:
        with told(f"read the IAM user {name}"):
            return _user(clients["iam"].get_user(UserName=name)["User"])
    except AwsError as error:
        if error.code in ("NoSuchEntity", "NoSuchEntityException"):
            return None
        raise


def create_user(clients: Clients, name: str) -> User:
    """Make the user, with no rights and no password. Raises: AwsError"""
    with told(f"create the IAM user {name}"):
        return _user(clients["iam"].create_user(UserName=name, Tags=[{"Key": "made-by", "Value": "sesrelay"}])["User"])


def put_policy(clients: Clients, user: User, policy: dict[str, Any]) -> None:
    """Let the user do what the policy says: in the user where it fits, else as a managed policy. Raises: AwsError"""
    iam, text = clients["iam"], compact(policy)
    if len(text) <= INLINE_MAX:
        with told(f"set the policy of the IAM user {user.name}"):
            iam.put_user_policy(UserName=user.name, PolicyName=POLICY, PolicyDocument=text)
        return
    if len(text) > MANAGED_MAX:
        raise AwsError(
            f"the policy has {len(text)} characters, but IAM allows at most {MANAGED_MAX}; limit it to fewer domains with "
            "--domain, or use *.DOMAIN in the routes"
        )
    with told(f"attach the managed policy to the IAM user {user.name}"):
        arn = f"arn:{partition(clients.region)}:iam::{user.account_id}:policy/{user.name}"
        try:
            iam.create_policy(PolicyName=user.name, PolicyDocument=text)
        except iam.exceptions.EntityAlreadyExistsException:
            versions = iam.list_policy_versions(PolicyArn=arn)["Versions"]
            spare = sorted((one for one in versions if not one["IsDefaultVersion"]), key=lambda one: one["CreateDate"])
            if len(versions) >= VERSIONS_MAX:
                iam.delete_policy_version(PolicyArn=arn, VersionId=spare[0]["VersionId"])
            iam.create_policy_version(PolicyArn=arn, PolicyDocument=text, SetAsDefault=True)
        iam.attach_user_policy(UserName=user.name, PolicyArn=arn)


def keys(clients: Clients, name: str) -> list[Key]:
    """Return the user's access keys, the oldest first. Raises: AwsError"""
    with told(f"list the access keys of the IAM user {name}"):
        listed = clients["iam"].list_access_keys(UserName=name)["AccessKeyMetadata"]
    found = [Key(one["AccessKeyId"], one["Status"] == "Active", one["CreateDate"].timestamp()) for one in listed]
    return sorted(found, key=lambda one: one.created)


def create_key(clients: Clients, name: str) -> NewKey:
    """Make an access key. Raises: AwsError"""
    with told(f"create an access key for the IAM user {name}"):
        made = clients["iam"].create_access_key(UserName=name)["AccessKey"]
        return NewKey(made["AccessKeyId"], made["SecretAccessKey"])


def delete_key(clients: Clients, name: str, key_id: str) -> None:
    """Take an access key away for good. Raises: AwsError"""
    with told(f"delete the access key {key_id} of the IAM user {name}"):
        clients["iam"].update_access_key(UserName=name, AccessKeyId=key_id, Status="Inactive")
        clients["iam"].delete_access_key(UserName=name, AccessKeyId=key_id)


def prove(
    source: Source, key: NewKey, sender: str, monotonic: Callable[[], float], sleep: Callable[[float], None], patience: float
) -> str:
    """Send to SES's mailbox simulator with the key and nothing else; return the message's id.

    A key that is not known yet is tried again until `patience` is over. Units: seconds. Raises: AwsError
    """
    begun, pause = monotonic(), 1.0
    own = Clients(
        replace(source, access_key_id=key.id, secret_access_key=key.secret, profile=None, role_arn=None, external_id=None)
    )
    to = "success@simulator.amazonses.com"
    raw = f"From: {sender}\r\nTo: {to}\r\nSubject: A new access key of sesrelay\r\n\r\nIt sends.\r\n".encode()
    while True:
        try:
            with told(f"send from {sender} with the new access key {key.id}"):
                answer = own["ses"].send_raw_email(Source=sender, Destinations=[to], RawMessage={"Data": raw})
                return str(answer["MessageId"])
        except AwsError as error:
            if not (error.temporary or error.code in SETTLING) or monotonic() - begun + pause > patience:
                raise
        sleep(pause)
        pause = min(2 * pause, 8.0)


def _user(answer: dict[str, Any]) -> User:
    return User(answer["UserName"], answer["Arn"].split(":")[4])
