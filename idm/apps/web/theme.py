"""The appearance of the page: its theme, its style sheet, and the texts for empty places."""

import gradio as gr

HEADER = """
<h1>Face restoration</h1>
<p>Finds the faces of a photograph and restores each of them.
The details of a restored face are <strong>invented by the model</strong>: likely, but not evidence of how anyone
looked.</p>
"""

EMPTY_FACES = '<div class="idm-empty">Drop a photograph, or try an example.<br>The faces found appear here.</div>'
NO_FACES = (
    '<div class="idm-empty">No face was found in this photograph.<br>'
    "Faces must be at least about 12 pixels large and not hidden. If the picture lies on its side, set Turn.</div>"
)
EMPTY_RESULT = '<div class="idm-empty">Before and after appear here.</div>'
EMPTY_FACE = '<div class="idm-empty">Each restored face appears here, to be used, rejected or drawn again.</div>'
STALE = (
    '<p class="idm-stale" role="status">The settings have changed since this result was made. '
    "Restore again to use them.</p>"
)
SEVERAL = (
    '<p class="idm-note">All faces of each photograph are restored with the settings on this page. The ZIP file holds '
    "the results and a status.json with a report for each face.</p>"
)

# System fonts only: a theme's default ones are fetched from another host.
THEME = gr.themes.Base(
    primary_hue=gr.themes.colors.teal,
    secondary_hue=gr.themes.colors.teal,
    neutral_hue=gr.themes.colors.slate,
    radius_size=gr.themes.sizes.radius_lg,
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    block_border_width="1px",
    block_shadow="none",
    block_label_background_fill="transparent",
    block_label_background_fill_dark="transparent",
    block_label_border_width="0px",
    body_text_color_subdued="*neutral_500",
    body_text_color_subdued_dark="*neutral_400",
    block_label_text_color="*body_text_color_subdued",
    link_text_color="*primary_700",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_800",
    button_primary_text_color="white",
    button_large_text_weight="600",
)

CSS = """
.gradio-container main { width: 100%; min-width: 0; max-width: 1240px !important; margin: 0 auto !important; }
footer { display: none !important; }
#idm-header h1 { font-size: 1.6rem; font-weight: 650; letter-spacing: -0.01em; margin: 0.4rem 0 0.2rem; }
#idm-header p { margin: 0; max-width: 46rem; color: var(--body-text-color-subdued); line-height: 1.5; }
#idm-header strong { color: var(--body-text-color); font-weight: 600; }
button.selected[role="tab"] { color: var(--primary-700) !important; }
.dark button.selected[role="tab"] { color: var(--primary-400) !important; }
#idm-examples .caption-label { display: none; }
.idm-empty { display: flex; align-items: center; justify-content: center; text-align: center; min-height: 320px;
  border: 1px dashed var(--border-color-primary); border-radius: var(--radius-lg); padding: 1.5rem; line-height: 1.7;
  color: var(--body-text-color-subdued); }
.idm-faces { width: 100%; border-collapse: collapse; font-size: 0.92rem; }
.idm-faces, .idm-faces * { border-width: 0 !important; border-style: solid; }
.idm-faces th, .idm-faces td { text-align: left; vertical-align: middle;
  padding: 0.6rem !important; color: var(--body-text-color); }
.idm-faces th { font-weight: 500; color: var(--body-text-color-subdued); padding: 0.3rem 0.6rem !important; }
.idm-faces td { border-color: var(--border-color-primary) !important; border-top-width: 1px !important; }
.idm-faces .num { font-variant-numeric: tabular-nums; white-space: nowrap; }
.idm-faces small { display: block; color: var(--body-text-color-subdued); line-height: 1.35; max-width: 18rem; }
.idm-bar { width: 88px; height: 5px; border-radius: 3px; background: var(--border-color-primary); margin-top: 5px; }
.idm-bar i { display: block; height: 100%; border-radius: 3px; background: var(--primary-500); }
.idm-note { color: var(--body-text-color-subdued); font-size: 0.86rem; line-height: 1.5; margin: 0.5rem 0 0; }
#idm-or { color: var(--body-text-color-subdued); font-size: 0.86rem; margin: -0.6rem 0 -0.9rem; }
#idm-or .prose { padding: 0; }
.idm-preview img { display: block; max-width: 100%; max-height: 640px; margin: 0 auto; border-radius: 8px; }
.idm-map { margin: 1rem 0 0; }
.idm-map img { display: block; max-width: 100%; max-height: 640px; border-radius: 8px; }
.idm-state { margin: 0.6rem 0 0; line-height: 1.5; }
.idm-stale { margin: 0 0 0.6rem; padding: 0.6rem 0.9rem; border-radius: 8px; border: 1px solid #b45309;
  background: #fef3c7; color: #78350f; }
.idm-variants { display: flex; flex-wrap: wrap; gap: 0.8rem; }
.idm-variants figure { margin: 0; width: 200px; max-width: calc(50% - 0.4rem); }
.idm-variants img { display: block; width: 100%; border-radius: 8px; }
.idm-variants .used img { outline: 3px solid var(--primary-600); outline-offset: 1px; }
.idm-variants figcaption { font-size: 0.86rem; line-height: 1.4; padding-top: 0.3rem; }
.gradio-container :focus-visible { outline: 3px solid var(--primary-600) !important; outline-offset: 2px; }
.dark .gradio-container :focus-visible, .gradio-container.dark :focus-visible {
  outline-color: var(--primary-400) !important; }
/* "upload more", a button within a button: such files are cleared and chosen again */
button[aria-label="common.upload"] { display: none !important; }
#idm-examples { border-width: 0 !important; padding: 0; background: transparent; min-height: 0; }
#idm-examples .grid-container { grid-template-columns: repeat(3, minmax(0, 1fr)); }
#idm-examples .thumbnail-item { border-radius: 8px; min-width: 0; }
#idm-new-seed { align-self: end; height: 2.6rem; border-radius: 8px; }
@media (max-width: 480px) { .idm-faces .wide { display: none; } }
"""
