"""Ask about all the files below a folder, within a quarter of a dollar, and see what it took."""

# the model writes:
# FINAL([path for path, text in context.items() if "Error" in text])

from pathlib import Path

from rlm_langchain import Budget, create_rlm

rlm = create_rlm(
    root_model="openai/gpt-4o",
    recursive_model="openai/gpt-4o-mini",
    budget=Budget(usd=0.25),
)
result = rlm.invoke({"query": "Which files define or raise errors?", "context": Path("src")})

print(result["answer"])
print(result["status"], "after", result["iterations"], "turns and", result["sub_calls"], "sub-calls")
