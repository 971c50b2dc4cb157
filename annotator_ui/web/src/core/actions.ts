/** Everything a person can do with a key or a button: one table, from which the key sheet is made as well. */
import { idsBelow } from "./proposals";
import { CUTOFF_STEP } from "./review";
import { selectedProposal } from "./selection";
import { saveStateOf } from "./store";
import type { LabelSession } from "./session";
import type { LabelState } from "./store";

export interface Action {
  readonly id: string;
  readonly label: string;
  readonly group: "Prompt" | "Masks" | "Prefilled" | "Image" | "View";
  readonly keys: readonly string[];
  /** Whether the action makes sense now; absent means always. */
  readonly when?: (state: LabelState) => boolean;
  readonly run: (session: LabelSession) => void;
}

const isReady = (state: LabelState): boolean => state.phase === "ready" && !state.isSubmitting;
const hasDraft = (state: LabelState): boolean => isReady(state) && state.draft.prompts.length > 0;
const hasChoice = (state: LabelState): boolean => hasDraft(state) && (state.shown?.prediction.candidates.length ?? 0) > 1;
const hasSelection = (state: LabelState): boolean => isReady(state) && state.selectedId !== null;
const hasPrefilled = (state: LabelState): boolean => isReady(state) && state.proposals.length > 0;
const hasObjects = (state: LabelState): boolean => isReady(state) && state.masks.length + state.proposals.length > 0;
const mayCorrect = (state: LabelState): boolean => isReady(state) && selectedProposal(state) !== null;
const hasBelow = (state: LabelState): boolean =>
  isReady(state) && idsBelow(state.proposals, state.cutoff, state.draft).length > 0;

export const ACTIONS: readonly Action[] = [
  {
    id: "accept", label: "Accept the mask and begin the next", group: "Prompt", keys: ["N", "Enter"],
    when: (state) => hasDraft(state) || mayCorrect(state), run: (session) => session.accept(),
  },
  {
    id: "cycle", label: "Next of the three candidates", group: "Prompt", keys: ["M"],
    when: hasChoice, run: (session) => session.cycle(),
  },
  {
    id: "clear", label: "Clear the prompts, or the selection", group: "Prompt", keys: ["Esc"],
    when: (state) => hasDraft(state) || state.selectedId !== null,
    run: (session) => (session.store.getState().draft.prompts.length > 0 ? session.clear() : session.select(null)),
  },
  {
    id: "undo", label: "Undo", group: "Prompt", keys: ["Ctrl+Z"],
    when: (state) => isReady(state) && state.history.done.length > 0, run: (session) => session.undo(),
  },
  {
    id: "redo", label: "Redo", group: "Prompt", keys: ["Ctrl+Shift+Z", "Ctrl+Y"],
    when: (state) => isReady(state) && state.history.undone.length > 0, run: (session) => session.redo(),
  },
  {
    id: "prompt-tool", label: "Prompt tool: click, Shift+click, drag a box", group: "Prompt", keys: ["Q"],
    run: (session) => session.setTool("prompt"),
  },
  {
    id: "select-tool", label: "Select tool: click a mask", group: "Masks", keys: ["V"],
    run: (session) => session.setTool("select"),
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
    run: (session) => session.toggleMasks(),
  },
  {
    id: "less-opaque", label: "Masks more transparent", group: "Masks", keys: ["{"],
    run: (session) => session.setOpacity(session.store.getState().opacity - 0.1),
  },
  {
    id: "more-opaque", label: "Masks more opaque", group: "Masks", keys: ["}"],
    run: (session) => session.setOpacity(session.store.getState().opacity + 0.1),
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
  { id: "fit", label: "Fit the image", group: "View", keys: ["F"], run: (session) => session.look((view) => view.fit()) },
  {
    id: "zoom-object", label: "Zoom to the mask", group: "View", keys: ["Z"],
    run: (session) => session.look((view) => view.zoomToObject()),
  },
  {
    id: "zoom-in", label: "Zoom in", group: "View", keys: ["Plus", "="],
    run: (session) => session.look((view) => view.zoomBy(1.25)),
  },
  {
    id: "zoom-out", label: "Zoom out", group: "View", keys: ["-"],
    run: (session) => session.look((view) => view.zoomBy(0.8)),
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
  ["Wheel, pinch", "zoom at the pointer"],
  ["Space+drag, middle drag", "move the image (the hand tool does it without holding)"],
  ["1 to 9", "class for the next masks, where the dataset has classes"],
];

export function actionById(id: string): Action {
  const action = ACTIONS.find((one) => one.id === id);
  if (!action) throw new Error(`There is no action ${id}.`);
  return action;
}
