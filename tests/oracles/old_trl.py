"""How TRL 0.7, which trained the published Zephyr, cut a pair to length, written out for tests to compare with.

Its `DPOTrainer` (`truncation_mode="keep_end"`, its default, which the alignment handbook left as it was) did it in
three steps, after the end-of-sequence token had been put to both answers:

1. The longer of the two answers decides for both.
2. Where the prompt and that answer have more than `max_length` tokens, the prompt keeps its last `max_prompt_length`
   tokens (`keep_start`: its first ones). Else it stays whole, however long it is.
3. Where that is still too much, both answers keep their first `max_length - max_prompt_length` tokens, also the one
   that would have had room, and also after a prompt shorter than `max_prompt_length`. What is cut away takes the
   end-of-sequence token along; none is put back.
"""


def cut(
    prompt: list[int], chosen: list[int], rejected: list[int], max_length: int, max_prompt_length: int
) -> tuple[list[int], list[int], list[int]]:
    """Token ids of prompt and answers, the answers with their end-of-sequence tokens -> those that were trained on."""
    longer = len(chosen) if len(chosen) > len(rejected) else len(rejected)
    too_much = len(prompt) + longer - max_length
    if too_much > 0:
        while len(prompt) > max_prompt_length:
            prompt = prompt[1:]
    too_much = len(prompt) + longer - max_length
    if too_much > 0:
        while len(chosen) > max_length - max_prompt_length:
            chosen = chosen[:-1]
        while len(rejected) > max_length - max_prompt_length:
            rejected = rejected[:-1]
    return prompt, chosen, rejected
