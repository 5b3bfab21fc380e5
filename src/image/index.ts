/** Images: what VMs are made from. */
export { BASE_RECIPE } from '../../firmware/base-recipe.ts';
export type { RecipeInput } from '../../firmware/recipe.ts';
export {
  ImageStore,
  type ImageBuildOptions,
  type ImageBuildResult,
  type ImageImportOptions,
  type ImageStoreOptions,
  type ImageVersion,
  type ImageWorkOptions,
} from './store.ts';
export type { BootFiles, Image, ImageFile, ImageManifest, ImageProgress } from './types.ts';
