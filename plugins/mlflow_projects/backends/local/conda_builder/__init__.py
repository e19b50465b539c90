"""The helper process that makes conda environments; nothing of the library imports it."""
