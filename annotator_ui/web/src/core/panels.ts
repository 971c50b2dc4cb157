import type { LabelStore } from "./store";

/** The panels over the canvas: the key sheet, the reasons for skipping, and what to do in this stage. */
export class Panels {
  constructor(private readonly store: LabelStore) {}

  toggleHelp(isHelpOpen = !this.store.getState().isHelpOpen): void {
    this.store.setState({ isHelpOpen });
  }

  toggleSkip(isSkipOpen = !this.store.getState().isSkipOpen): void {
    this.store.setState({ isSkipOpen, isGuideOpen: false });
  }

  toggleGuide(isGuideOpen = !this.store.getState().isGuideOpen): void {
    this.store.setState({ isGuideOpen, isSkipOpen: false });
  }

  closeAll(): void {
    this.store.setState({ isHelpOpen: false, isSkipOpen: false, isGuideOpen: false });
  }
}
