"""An agent with an RLM as a tool: the agent can ask about a book that never enters its prompt."""

# the model writes:
# FINAL(f"{context.count('whale')} times")
# the agent calls: ask_book {"query": "How often is the whale mentioned?"}

import argparse
from pathlib import Path

from langchain.agents import create_agent
from langchain.chat_models import init_chat_model

from rlm_langchain import RLMContextMiddleware, create_rlm, rlm_tool

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("book", nargs="?", default="book.txt", type=Path)
parser.add_argument("--model", default="openai:gpt-4o")
args = parser.parse_args()

rlm = create_rlm(root_model=args.model)
agent = create_agent(
    init_chat_model(args.model),
    tools=[rlm_tool(rlm, args.book, name="ask_book")],
    middleware=[RLMContextMiddleware(rlm)],  # long outputs of other tools are handled the same way
)
end = agent.invoke({"messages": [("human", "How often does the book mention the whale?")]})
for message in end["messages"]:
    message.pretty_print()
