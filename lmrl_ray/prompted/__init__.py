"""Prompted language models behind an OpenAI-compatible endpoint, played and scored like any other policy."""
