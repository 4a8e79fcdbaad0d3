"""Evaluates models: by questions and a judge, by recorded judgments, and through lm-eval and AlpacaEval's own package.

    python jobs/evaluate.py run --recipe RECIPE
    python jobs/evaluate.py mt-bench --judgments gpt-4_single.jsonl --questions question.jsonl --json scores.json
    python jobs/evaluate.py alpaca-eval --annotations annotations.json --json win_rate.json
    python jobs/evaluate.py agreement --judged verdicts.jsonl --json agreement.json
    python jobs/evaluate.py versus --judged comparisons.jsonl --json versus.json
    python jobs/evaluate.py lm-eval --base-url URL --model NAME --tokenizer DIR --mmlu DIR --json mmlu.json
    python jobs/evaluate.py alpaca-eval --outputs model_outputs.json --baseline FILE --annotators-config NAME \
        --alpaca-eval-python PY --json win_rate.json

Each prints a table, with 95 % intervals and with how many of how many count (docs/evaluation.md).
"""

from zephyr_ray.cli.evaluate import main

if __name__ == "__main__":
    main(__doc__)
