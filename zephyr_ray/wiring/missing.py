"""What a recipe lacks that has no such stage."""

from __future__ import annotations

from zephyr_ray.config.recipe import Recipe
from zephyr_ray.pipeline.rounds import in_folder
from zephyr_ray.training import extrapolated
from zephyr_ray.training.methods import methods
from zephyr_ray.wiring.alignment import ALL_ROWS, final_methods, starts_somewhere


def lack_of(recipe: Recipe, name: str) -> str | None:
    """What a recipe lacks that has no such stage."""
    number, name = in_folder(name)
    if number > recipe.rounds:
        return f"rounds={recipe.rounds}, and no round {number}; set rounds={number}"
    if number > 1 and name in final_methods(recipe) and name != recipe.each_round.method:
        return f"each_round.method={recipe.each_round.method}, which trains in round {number}, and not {name}"
    extrapolates = name == extrapolated.KIND and recipe.expo is not None
    is_of_pairs = extrapolates or name in {
        "tokenized",
        "reference_logps",
        *final_methods(recipe, ALL_ROWS),
    }
    if is_of_pairs and not starts_somewhere(recipe):
        return "no model to start from: set model.path, or give it an sft section"
    if name in ("best_answers", "tokenized_best_answers"):
        return "no method that learns the best answers; add a rejection_sampling section"
    if name in ("unpaired", "tokenized_unpaired", "unpaired_reference_logps"):
        return "no method that learns from single answers; add a kto section"
    if method := methods().get(name):
        if getattr(recipe, name, None) is not None:
            return f"no sft section, whose base and dialogues {name} starts from; add one"
        way_out = ", or start from a model: --set model.path=DIR_OR_HUB_ID" if method.rows == "dialogues" else ""
        return f"no {name} section; add one{way_out}"
    if name == extrapolated.KIND:
        return "no expo section; add one with its alpha"
    if name in ("generated_dialogues", "seeds", "diversity"):
        return "no generation section; add one with the teachers and how they make dialogues"
    if name == "selected_dialogues":
        return "no dialogues.select; say how many dialogues are chosen, and by what"
    if name == "judgments" and recipe.judging is None:
        return "no judging section; add one with the judges of the answers"
    if name in ("candidates", "judgments"):
        return "no sampling section; add one with the models that answer the prompts"
    if name in ("held_out_dialogues", "held_out_tokenized_dialogues"):
        return "no dialogues.held_out; set it to dialogues that are not trained on"
    if name.startswith(("evaluation/preferences", "held_out_")):
        return "no preferences.held_out; set it to pairs that are not trained on"
    return None
