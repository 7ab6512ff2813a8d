"""The loops around the networks: decoding tokens, solving the flow's ODE, vocoding, chunks."""
