import type { ButtonHTMLAttributes, ReactElement, ReactNode } from "react";

import { Icon, type IconName, Logo } from "./icons";
import { Link } from "./router";

/** A full page with one message. */
export function Notice({ title, children }: { title: string; children: ReactNode }): ReactElement {
  return (
    <main className="notice">
      <Logo />
      <h1>{title}</h1>
      <p>{children}</p>
    </main>
  );
}

interface ToolButtonProps extends ButtonHTMLAttributes<HTMLButtonElement> {
  icon: IconName;
  label: string;
  /** The key shown in the tip, as people write it. */
  keys?: string | undefined;
}

/** A square button with a picture; the mouse never leaves the focus on it, so keys keep going to the canvas. */
export function ToolButton({ icon, label, keys, ...rest }: ToolButtonProps): ReactElement {
  return (
    <button
      type="button"
      className="tool"
      aria-label={label}
      title={keys ? `${label} (${keys})` : label}
      onPointerDown={(event) => event.preventDefault()}
      {...rest}
    >
      <Icon name={icon} />
    </button>
  );
}

/** The bar of the pages beside the labelling page. */
export function PageHeader({ children }: { children?: ReactNode }): ReactElement {
  return (
    <header className="page-header">
      <Link to={{ page: "datasets" }} className="brand" aria-label="Maskloop, all datasets">
        <Logo />
        <span>Maskloop</span>
      </Link>
      {children}
    </header>
  );
}

export function formatNumber(value: number | null | undefined, digits = 0): string {
  if (value === null || value === undefined) return "–";
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** A share from 0 to 1 in percent. */
export function formatPercent(share: number | null): string {
  return share === null ? "–" : `${formatNumber(100 * share)} %`;
}

export function sayStage(stage: string | null): string {
  if (stage === null) return "no stage open";
  return stage === "semi_automatic" ? "semi-automatic" : stage.replaceAll("_", " ");
}
