"""Mango, CouchDB's declarative queries: what a selector means, and which documents it matches."""

from .normal_form import normalize
from .selector import Matcher, compile_normalized, compile_selector

__all__ = ["Matcher", "compile_normalized", "compile_selector", "normalize"]
