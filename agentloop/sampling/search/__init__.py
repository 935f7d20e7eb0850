"""Tree search: MCTS, beam search and best-of-n over live environments, as trees like those that groups make."""
