import type { ReactElement } from "react";

/** Paths on a 24 by 24 grid, drawn as lines. */
const PATHS = {
  prompt: "M12 3v4M12 17v4M3 12h4M17 12h4M12 12m-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0",
  select: "M5 3l14 8-6.2 1.6L10 19z",
  pan: "M12 3v18M3 12h18M9 6l3-3 3 3M9 18l3 3 3-3M6 9l-3 3 3 3M18 9l3 3-3 3",
  brush: "M20 4c-5 2-9 6-11 9l2 2c3-2 7-6 9-11zM8.5 14c-2 0-3 1.5-3 3.2 0 1-.6 1.8-1.5 2.3 3.5 1 7-.5 7-3.5",
  eraser: "M14 5l6 6-8 8H8l-4-4zM9 10l6 6M8 19h12",
  lasso: "M12 5c5 0 9 2.2 9 5s-4 5-9 5-9-2.2-9-5 4-5 9-5zM7 14.4a2 2 0 1 0 .5 3.6c0 1.5-.8 2.5-2 3",
  holes: "M12 4a8 8 0 1 0 0 16a8 8 0 1 0 0-16zM12 9v6M9 12h6",
  specks: "M10 8a6 6 0 1 0 0 12a6 6 0 1 0 0-12zM18.5 4.5v.1M20 9v.1M15 4v.1",
  undo: "M9 14L4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3",
  redo: "M15 14l5-5-5-5M20 9H10a6 6 0 0 0 0 12h3",
  fit: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  eye: "M2 12s3.6-7 10-7 10 7 10 7-3.6 7-10 7S2 12 2 12zM12 12m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0",
  hidden: "M4 4l16 16M9.9 5.2A10 10 0 0 1 12 5c6.4 0 10 7 10 7a17 17 0 0 1-3.2 4M6.2 6.9A16 16 0 0 0 2 12s3.6 7 10 7a9.6 9.6 0 0 0 4.5-1.1M9.9 9.9a3 3 0 0 0 4.2 4.2",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v6M14 11v6",
  check: "M4 12.5l5.5 5.5L20 6.5",
  skip: "M5 5l9 7-9 7zM18 5v14",
  help: "M9 9a3 3 0 1 1 4.2 2.8c-.8.4-1.2 1-1.2 2.2M12 17.5v.1M12 12m-10 0a10 10 0 1 0 20 0a10 10 0 1 0-20 0",
  chart: "M4 20V4M4 20h16M8 16v-5M12 16V8M16 16v-8",
  out: "M14 4h5v16h-5M11 8l-4 4 4 4M7 12h9",
  close: "M6 6l12 12M18 6L6 18",
  warn: "M12 4l9 16H3zM12 10v4M12 17v.1",
  retry: "M20 11a8 8 0 1 0-2.3 6.3M20 5v6h-6",
  object: "M12 12m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0M4 8V4h4M16 4h4v4M20 16v4h-4M8 20H4v-4",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 18 }: { name: IconName; size?: number }): ReactElement {
  return (
    <svg className="icon" width={size} height={size} viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

export function Logo(): ReactElement {
  return (
    <svg className="logo" viewBox="0 0 32 32" width="26" height="26" aria-hidden="true">
      <path d="M16 4c7 0 12 4.6 12 11s-5.4 13-13 13S4 22.4 4 16 9 4 16 4z" />
      <circle cx="16" cy="16" r="4" />
    </svg>
  );
}
