"""gradio's Blocks, where values that no control of the page has are the caller's error and not the server's."""

import html
from typing import Any

import gradio as gr

_NEVER_EMPTY = (gr.CheckboxGroup, gr.Dropdown, gr.Radio, gr.Slider)


class PageBlocks(gr.Blocks):
    """Blocks that answer such a call with an error. gradio would also print a traceback into the server's log."""

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], state: Any, explicit_call: bool = False
    ) -> list[Any]:
        """Turn what a call sent into the arguments of a handler.

        Raises:
            gr.Error: the values are too few, of a wrong type, or not among the choices.
        """
        message = "This is not a request of the page."
        try:
            values: list[Any] = await super().preprocess_data(block_fn, inputs, state, explicit_call)
            blocks = zip(values, block_fn.inputs, strict=False)  # handlers may have arguments without a control
            is_whole = not any(value is None and isinstance(block, _NEVER_EMPTY) for value, block in blocks)
        except gr.Error as error:
            raise gr.Error(html.escape(error.message), print_exception=False) from None
        except Exception:  # each component has its own
            raise gr.Error(message, print_exception=False) from None
        if not is_whole:
            raise gr.Error(message, print_exception=False)
        return values
