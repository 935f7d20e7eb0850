"""Engines: vLLM over HTTP, a supervised local vLLM server, an in-process transformers fallback and a scripted one for tests."""
