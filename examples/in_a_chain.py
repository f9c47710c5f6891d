"""An RLM is a Runnable: it stands in a chain like any other, here between a prompt and a second model."""

# the model writes:
# FINAL([line for line in context.splitlines() if "ERROR" in line])
# a sub-call replies: The disk was full; make room.

from operator import itemgetter
from pathlib import Path

from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

from rlm_langchain import create_rlm

find = create_rlm(root_model="openai:gpt-4o") | itemgetter("answer")
advise = ChatPromptTemplate.from_template("What should be done about these?\n\n{errors}") | ChatOpenAI(
    model="gpt-4o-mini"
)

chain = {"errors": find} | advise
print(chain.invoke({"query": "Which lines are errors?", "context": Path("big.log")}).content)
