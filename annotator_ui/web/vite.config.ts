import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// The page must run under a policy without data: URLs and without inline script or style,
// so nothing is inlined and the preload polyfill (an inline helper) stays out.
export default defineConfig({
  base: "/static/",
  plugins: [react()],
  build: {
    outDir: "../static",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2023",
    reportCompressedSize: false,
  },
  server: { proxy: { "/api": "http://127.0.0.1:8000" } },
  test: { environment: "happy-dom", include: ["test/**/*.test.{ts,tsx}"] },
});
