// One step of the app's schema at a time, as its versions follow each other.
import { defineConfig } from "drizzle-kit";

export default defineConfig({
  dialect: "sqlite",
  schema: [`./schema_${process.env.STEP}.ts`, "./tidewater.ts"],
  out: "./drizzle",
  dbCredentials: { url: `file:${process.env.APP_DB}` },
  tablesFilter: process.env.WITHOUT_RECIPE ? [] : ["!tidewater_!(status)"],
});
