"""Strict parsing of what people write: files, objects of an API server, and variables whose values are documents.

An unknown key, or a value of the wrong type, is an error that names the path of the field and the most similar known
key: a misspelt key must never be treated like a missing one.
"""

from .fields import Field, Fields
from .nearest import any_of, instead_of, nearest
from .texts import read_json, read_yaml, yaml_faults

__all__ = ["Field", "Fields", "any_of", "instead_of", "nearest", "read_json", "read_yaml", "yaml_faults"]
