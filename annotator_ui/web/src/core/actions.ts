/** Everything a person can do with a key or a button: one table, from which the key sheet is made as well. */
import { isBegun } from "./draft";
import { idsBelow } from "./proposals";
import { CUTOFF_STEP } from "./review";
import { saveStateOf } from "./store";
import type { LabelSession } from "./session";
import type { LabelState, Tool } from "./store";

export interface Action {
  readonly id: string;
  readonly label: string;
  readonly group: "Prompt" | "Brush" | "Masks" | "Prefilled" | "Image" | "View";
  readonly keys: readonly string[];
  /** Again and again while the key is held. */
  readonly repeats?: true;
  /** A tool: holding its key borrows it, a tap keeps it. */
  readonly tool?: Tool;
  /** Whether the action makes sense now; absent means always. */
  readonly when?: (state: LabelState) => boolean;
  readonly run: (session: LabelSession) => void;
}

const isReady = (state: LabelState): boolean => state.phase === "ready" && !state.isSubmitting;
const hasDraft = (state: LabelState): boolean => isReady(state) && isBegun(state.draft);
const hasChoice = (state: LabelState): boolean => hasDraft(state) && (state.shown?.prediction.candidates.length ?? 0) > 1;
const hasSelection = (state: LabelState): boolean => isReady(state) && state.selectedId !== null;
const hasPrefilled = (state: LabelState): boolean => isReady(state) && state.proposals.length > 0;
const hasObjects = (state: LabelState): boolean => isReady(state) && state.masks.length + state.proposals.length > 0;
const hasMask = (state: LabelState): boolean => hasDraft(state) || hasSelection(state);
const hasBelow = (state: LabelState): boolean =>
  isReady(state) && idsBelow(state.proposals, state.cutoff, state.draft).length > 0;

export const ACTIONS: readonly Action[] = [
  {
    id: "accept", label: "Accept the mask and begin the next", group: "Prompt", keys: ["N", "Enter"],
    when: hasMask, run: (session) => session.accept(),
  },
  {
    id: "cycle", label: "Next of the three candidates", group: "Prompt", keys: ["M"],
    when: hasChoice, run: (session) => session.cycle(),
  },
  {
    id: "clear", label: "Clear the mask being made, or the selection", group: "Prompt", keys: ["Esc"],
    when: (state) => hasDraft(state) || state.selectedId !== null,
    run: (session) => (isBegun(session.store.getState().draft) ? session.clear() : session.select(null)),
  },
  {
    id: "undo", label: "Undo", group: "Prompt", keys: ["Ctrl+Z"], repeats: true,
    when: (state) => isReady(state) && state.history.done.length > 0, run: (session) => session.undo(),
  },
  {
    id: "redo", label: "Redo", group: "Prompt", keys: ["Ctrl+Shift+Z", "Ctrl+Y"], repeats: true,
    when: (state) => isReady(state) && state.history.undone.length > 0, run: (session) => session.redo(),
  },
  {
    id: "prompt-tool", label: "Prompt tool: click, Shift+click, drag a box", group: "Prompt", keys: ["Q"],
    run: (session) => session.looks.setTool("prompt"),
  },
  {
    id: "brush-tool", label: "Brush: drag to add, Shift or right button takes away", group: "Brush", keys: ["B"], tool: "brush",
    run: (session) => session.looks.setTool("brush"),
  },
  {
    id: "erase-tool", label: "Eraser: drag to take away", group: "Brush", keys: ["E"], tool: "erase",
    run: (session) => session.looks.setTool("erase"),
  },
  {
    id: "lasso-tool", label: "Lasso: draw around what to add; Shift or right button takes away", group: "Brush",
    keys: ["L"], tool: "lasso", run: (session) => session.looks.setTool("lasso"),
  },
  {
    id: "smaller", label: "Smaller brush", group: "Brush", keys: ["["], repeats: true,
    run: (session) => session.looks.stepBrushSize(-1),
  },
  {
    id: "larger", label: "Larger brush", group: "Brush", keys: ["]"], repeats: true,
    run: (session) => session.looks.stepBrushSize(1),
  },
  {
    id: "fill-holes", label: "Fill the holes of the mask", group: "Brush", keys: ["O"],
    when: hasMask, run: (session) => session.painter.fillHoles(),
  },
  {
    id: "remove-specks", label: "Remove specks: pieces under a tenth of the largest", group: "Brush", keys: ["Shift+O"],
    when: hasMask, run: (session) => session.painter.removeSpecks(),
  },
  {
    id: "select-tool", label: "Select tool: click a mask", group: "Masks", keys: ["V"],
    run: (session) => session.looks.setTool("select"),
  },
  {
    id: "delete", label: "Delete the selected mask, or reject a prefilled one", group: "Masks", keys: ["Delete", "Backspace"],
    when: hasSelection, run: (session) => session.deleteSelected(),
  },
  {
    id: "next-mask", label: "Select the next mask", group: "Masks", keys: ["."],
    when: hasObjects, run: (session) => session.selectNeighbour(1),
  },
  {
    id: "previous-mask", label: "Select the mask before", group: "Masks", keys: [","],
    when: hasObjects, run: (session) => session.selectNeighbour(-1),
  },
  {
    id: "hide", label: "Hide or show all masks", group: "Masks", keys: ["H"],
    run: (session) => session.looks.toggleMasks(),
  },
  {
    id: "less-opaque", label: "Masks more transparent", group: "Masks", keys: ["{"], repeats: true,
    run: (session) => session.looks.setOpacity(session.store.getState().opacity - 0.1),
  },
  {
    id: "more-opaque", label: "Masks more opaque", group: "Masks", keys: ["}"], repeats: true,
    run: (session) => session.looks.setOpacity(session.store.getState().opacity + 0.1),
  },
  {
    id: "raise-cutoff", label: "Raise the score slider: those below fade", group: "Prefilled", keys: [">"],
    when: hasPrefilled, run: (session) => session.review.moveCutoff(CUTOFF_STEP),
  },
  {
    id: "lower-cutoff", label: "Lower the score slider", group: "Prefilled", keys: ["<"],
    when: hasPrefilled, run: (session) => session.review.moveCutoff(-CUTOFF_STEP),
  },
  {
    id: "reject-below", label: "Reject all below the slider at once", group: "Prefilled",
    keys: ["Shift+Delete", "Shift+Backspace"], when: hasBelow, run: (session) => session.review.rejectBelow(),
  },
  {
    id: "submit", label: "Submit the image and open the next", group: "Image", keys: ["Ctrl+Enter"],
    when: isReady, run: (session) => void session.submit(),
  },
  {
    id: "skip", label: "Skip the image, with a reason", group: "Image", keys: ["S"],
    when: isReady, run: (session) => session.panels.toggleSkip(),
  },
  {
    id: "retry", label: "Try to save again now", group: "Image", keys: ["Ctrl+S"],
    when: (state) => saveStateOf(state) !== "saved", run: (session) => session.retrySaving(),
  },
  { id: "fit", label: "Fit the image", group: "View", keys: ["F"], run: (session) => session.looks.look((view) => view.fit()) },
  {
    id: "zoom-object", label: "Zoom to the mask", group: "View", keys: ["Z"],
    run: (session) => session.looks.look((view) => view.zoomToObject()),
  },
  {
    id: "zoom-in", label: "Zoom in", group: "View", keys: ["Plus", "="], repeats: true,
    run: (session) => session.looks.look((view) => view.zoomBy(1.25)),
  },
  {
    id: "zoom-out", label: "Zoom out", group: "View", keys: ["-"], repeats: true,
    run: (session) => session.looks.look((view) => view.zoomBy(0.8)),
  },
  { id: "guide", label: "Show what to do in this stage", group: "View", keys: ["I"], run: (session) => session.panels.toggleGuide() },
  { id: "help", label: "Show all keys", group: "View", keys: ["?", "F1"], run: (session) => session.panels.toggleHelp() },
];

/** Mouse habits and the class digits, shown on the key sheet beside the table. */
export const MOUSE_HABITS: readonly (readonly [string, string])[] = [
  ["Click", "foreground point"],
  ["Right click, Shift+click", "background point"],
  ["Drag", "box"],
  ["Alt+click", "select a mask with any tool"],
  ["Click with a prefilled mask selected", "correct it: the click refines it (N or Enter takes it up without a click)"],
  ["Paint with a mask selected", "correct it (N or Enter takes it up, so that clicks refine it)"],
  ["Hold B, E or L", "borrow the tool; let go and the one before is back"],
  ["Alt+wheel", "brush size"],
  ["Wheel, pinch", "zoom at the pointer"],
  ["Space+drag, middle drag", "move the image (the hand tool does it without holding)"],
  ["1 to 9", "class for the next masks, where the dataset has classes"],
];

export function actionById(id: string): Action {
  const action = ACTIONS.find((one) => one.id === id);
  if (!action) throw new Error(`There is no action ${id}.`);
  return action;
}
