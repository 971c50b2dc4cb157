import { type AnchorHTMLAttributes, type ReactElement, useSyncExternalStore } from "react";

/** The page's four addresses. */
export type Route =
  | { page: "datasets" }
  | { page: "sign-in" }
  | { page: "label"; dataset: string }
  | { page: "progress"; dataset: string };

export function parseRoute(path: string): Route {
  const [first = "", second = ""] = path.split("/").filter(Boolean).map(decodeSafely);
  if (first === "sign-in") return { page: "sign-in" };
  if ((first === "label" || first === "progress") && second) return { page: first, dataset: second };
  return { page: "datasets" };
}

function decodeSafely(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function pathOf(route: Route): string {
  if (route.page === "datasets") return "/";
  if (route.page === "sign-in") return "/sign-in";
  return `/${route.page}/${encodeURIComponent(route.dataset)}`;
}

const CHANGED = "maskloop:route";

export function navigate(route: Route, replace = false): void {
  history[replace ? "replaceState" : "pushState"](null, "", pathOf(route));
  window.dispatchEvent(new Event(CHANGED));
}

function subscribe(changed: () => void): () => void {
  window.addEventListener("popstate", changed);
  window.addEventListener(CHANGED, changed);
  return () => {
    window.removeEventListener("popstate", changed);
    window.removeEventListener(CHANGED, changed);
  };
}

export function useRoute(): Route {
  return parseRoute(useSyncExternalStore(subscribe, () => location.pathname));
}

interface LinkProps extends Omit<AnchorHTMLAttributes<HTMLAnchorElement>, "href"> {
  to: Route;
}

/** A real link that changes the page without loading it anew; modified clicks do what the browser does. */
export function Link({ to, ...rest }: LinkProps): ReactElement {
  return (
    <a
      {...rest}
      href={pathOf(to)}
      onClick={(event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
        event.preventDefault();
        navigate(to);
      }}
    />
  );
}
