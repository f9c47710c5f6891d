"""One plug-in of each kind for rlm_langchain. Nothing is registered here: `pyproject.toml` names them."""
