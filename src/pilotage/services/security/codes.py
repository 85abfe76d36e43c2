"""The short code by which two people, or one with two screens, see that nobody stands between two machines.

This is the numeric comparison of Bluetooth's secure simple pairing (Bluetooth Core Specification, volume 3, part H,
section 2.3.5.6.2), whose scheme is that of S. Vaudenay, "Secure Communications over Insecure Channels Based on Short
Authenticated Strings", CRYPTO 2005:

    1. the joiner sends its name and public key;
    2. the host answers with its own, and commits itself to a nonce: commitment = H(nonce, both names and keys);
    3. the joiner sends its nonce;
    4. the host opens the commitment: it sends its nonce, and the joiner checks it;
    5. both show code = H(names, keys, nonces), cut to six digits.

Whoever stands between has to choose its keys and one nonce towards each side before it learns the other's nonce. So it
can't search for values that lead to equal codes; it guesses, and one guess in a million is right.

Law of this room: pure, and nothing here is secret but the host's nonce until step 4.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256

NONCE_BYTES = 32
DIGITS = 6


@dataclass(frozen=True, slots=True)
class Party:
    """One side of a pairing.

    Attributes:
        name: whom its key speaks for.
        public: its public key, Z85.
    """

    name: str
    public: str


def commit(nonce: bytes, joiner: Party, host: Party) -> bytes:
    """Commit to a nonce without showing it."""
    return _digest(b"commitment", nonce, *_told(joiner), *_told(host))


def keeps_its_word(commitment: bytes, nonce: bytes, joiner: Party, host: Party) -> bool:
    """Tell whether a nonce is the one that was committed to."""
    return len(nonce) == NONCE_BYTES and hmac.compare_digest(commitment, commit(nonce, joiner, host))


def code(joiner: Party, host: Party, joiner_nonce: bytes, host_nonce: bytes) -> str:
    """Give the code that both screens show: six digits in two groups."""
    digest = _digest(b"code", *_told(joiner), *_told(host), joiner_nonce, host_nonce)
    digits = f"{int.from_bytes(digest) % 10**DIGITS:0{DIGITS}d}"
    return f"{digits[:3]} {digits[3:]}"


def _told(party: Party) -> tuple[bytes, bytes]:
    return party.name.encode(), party.public.encode()


def _digest(*fields: bytes) -> bytes:
    """Hash fields so that no two lists of them are written alike."""
    whole = sha256(b"pilotage pairing 1")
    for field in fields:
        whole.update(len(field).to_bytes(4, "big") + field)
    return whole.digest()
