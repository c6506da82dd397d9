"""Outcome rewards: is the answer right, do the tests pass? Any callable of the same form will do as well."""

from implicit_prime.verifiers.base import Verifier, VerifierResult, verify
from implicit_prime.verifiers.code import CodeVerifier
from implicit_prime.verifiers.exact import ExactVerifier
from implicit_prime.verifiers.mathematics import MathVerifier

__all__ = ["CodeVerifier", "ExactVerifier", "MathVerifier", "Verifier", "VerifierResult", "verify"]
